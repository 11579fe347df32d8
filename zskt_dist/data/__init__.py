"""Real images, for training teachers and for evaluation, which the transfer never reads.

Importing it needs neither pyarrow nor Pillow; pseudo-data (`data.pseudo`) and images of the user's
(`data.user_images`) do.
"""

from zskt_dist.data.batches import TrainingBatches, balanced_subset, on_device
from zskt_dist.data.classes import class_names
from zskt_dist.data.images import ImageDataset, Split, Standardise, as_bytes
from zskt_dist.data.sources import open_dataset

__all__ = [
    "ImageDataset",
    "Split",
    "Standardise",
    "TrainingBatches",
    "as_bytes",
    "balanced_subset",
    "class_names",
    "on_device",
    "open_dataset",
]
