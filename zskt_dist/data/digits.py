"""The 1,797 handwritten digits of 8x8 pixels that come with this package.

They are those of scikit-learn's `load_digits`, that is, the test set of *Optical Recognition of Handwritten Digits*
(E. Alpaydin and C. Kaynak, 1998, UCI Machine Learning Repository, doi:10.24432/C50P49, CC BY 4.0). `digits.npz` holds
`images` [1797, 8, 8] of 0 to 16, `labels` [1797] and `test` [1797]: which images the test split has, a stratified fifth
from `train_test_split(range(1797), test_size=360, random_state=0, stratify=labels)`.
"""

from pathlib import Path

import numpy as np
import torch

from zskt_dist.data.images import Split, SplitName

_FILE = Path(__file__).with_name("digits.npz")


def read_digits(split: SplitName) -> Split:
    """Gray images uint8 [N, 1, 8, 8] of 0 to 255, and labels."""
    with np.load(_FILE) as digits:
        chosen = digits["test"] == (split == "test")
        images = np.round(digits["images"][chosen] * (255 / 16)).astype(np.uint8)
        labels = digits["labels"][chosen].astype(np.int64)
    return Split(torch.from_numpy(images)[:, None], torch.from_numpy(labels))
