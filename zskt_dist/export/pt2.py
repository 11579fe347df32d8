"""Programs of `torch.export`: they run with torch alone, for any batch size."""

import io

import torch
from torch.export import Dim, ExportedProgram

from zskt_dist.export.check import Classifier
from zskt_dist.export.exported_network import Deployed
from zskt_dist.models import ImageShape


def export_program(deployed: Deployed, image_shape: ImageShape) -> ExportedProgram:
    """The network as a graph; raises whatever torch raises where it cannot be written as one."""
    example = torch.zeros(2, *image_shape)  # with one image the batch size would be fixed at one
    return torch.export.export(deployed, (example,), dynamic_shapes={"images": {0: Dim("batch")}})


def as_bytes(program: ExportedProgram) -> bytes:
    file = io.BytesIO()
    torch.export.save(program, file)
    return file.getvalue()


def from_bytes(content: bytes) -> Classifier:
    """The program of a file's content, as a user would load it."""
    return torch.export.load(io.BytesIO(content)).module()
