"""Files of a network, each checked against it before it gets its name."""

import hashlib
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from zskt_dist.data import Standardise
from zskt_dist.data.pool import pool_files, read_round
from zskt_dist.distributed.world import World
from zskt_dist.errors import UserError, one_line
from zskt_dist.evaluation.held_out import stored_sources
from zskt_dist.evaluation.image_sources import batches
from zskt_dist.export import onnx, pt2
from zskt_dist.export.check import AT_A_TIME, Classifier, agreement, compare
from zskt_dist.export.exported_network import NORMALISED, PIXELS, Deployed, ExportedNetwork
from zskt_dist.export.latency import latency_ms
from zskt_dist.export.load import load_network, write_weights
from zskt_dist.files import write_atomic, write_json

Entry = dict[str, Any]
_NOISE_BATCHES = 32


class Exporter:
    """Writes the formats of one network into a folder; a file that fails its check is not there afterwards.

    Args:
        folder: Files of these names in it are replaced or removed, so they have to be those of an earlier export.
        tolerance: Largest difference from PyTorch, as `Difference` counts, of formats that are the same network.
        normalises: The programs take pixels in [0, 1] instead of normalised images.
    """

    def __init__(self, exported: ExportedNetwork, folder: Path, *, tolerance: float, normalises: bool) -> None:
        self.exported, self.folder, self.tolerance = exported, folder, tolerance
        self.deployed = Deployed(exported, normalises=normalises)
        self.files: dict[str, Callable[[], Entry]] = {
            "safetensors": self._safetensors,
            "pt2": self._pt2,
            "onnx": self._onnx,
            "int8": self._int8,
        }

    def export(self, name: str) -> Entry:
        """Makes the file of a format.

        Returns:
            `file`, `bytes`, `sha256`, `input`, `difference` and `difference_large` (from PyTorch), of programs also
            `latency_ms` by batch size, and what else there is to say of the format.

        Raises:
            UserError: the network cannot be written in this format, or is another one there.
        """
        path = self.folder / self.file_name(name)
        try:
            return self.files[name]()
        except Exception as error:  # torch, ONNX and its runtime have no one class for what they cannot do
            path.unlink(missing_ok=True)  # an older one would look as if it had passed
            raise UserError(f"{path.name} is not written: {one_line(error)}") from error

    def file_name(self, name: str) -> str:
        """Of the file of a format."""
        return f"{self.exported.role}.{'int8.onnx' if name == 'int8' else name}"

    def _safetensors(self) -> Entry:
        with TemporaryDirectory() as draft:
            content = write_weights(self.exported, Path(draft)).read_bytes()
            network, config = load_network(draft, arch=self.exported.arch)
        entry = self._keep("safetensors", content, network, Deployed(self.exported, normalises=False))
        write_json(self.folder / "config.json", config)
        return entry

    def _pt2(self) -> Entry:
        content = pt2.as_bytes(self._program)
        return self._keep_program("pt2", content, pt2.from_bytes(content))

    def _onnx(self) -> Entry:
        network = onnx.OnnxNetwork(self._onnx_content)
        return self._keep_program("onnx", self._onnx_content, network) | {"opset": onnx.OPSET}

    def _int8(self) -> Entry:
        content = onnx.quantized(self._onnx_content)
        network = onnx.OnnxNetwork(content)
        shape, rng = self.exported.image_shape, torch.Generator().manual_seed(0)
        noise = (torch.randn(AT_A_TIME, *shape, generator=rng) for _ in range(_NOISE_BATCHES))
        images = {"noise": noise, "pseudo_images": pseudo_images(self.exported)}
        shares = {name: agreement(self.deployed, network, batches) for name, batches in images.items()}
        entry = self._keep_program("int8", content, network, check=False)  # no longer the same network
        known = {name: share for name, share in shares.items() if share is not None}
        return entry | {"opset": onnx.OPSET, "agreement": known}

    def _keep_program(self, name: str, content: bytes, network: Classifier, *, check: bool = True) -> Entry:
        entry = self._keep(name, content, network, self.deployed, check=check)
        return entry | {"latency_ms": latency_ms(network, self.exported.image_shape)}

    def _keep(self, name: str, content: bytes, network: Classifier, original: Deployed, *, check: bool = True) -> Entry:
        """Writes `content`, which is `network`, if that is as good as the original."""
        difference = compare(original, network, self.exported.image_shape)
        if check and not difference.within(self.tolerance):
            raise UserError(
                f"its logits differ from PyTorch's by {difference.ordinary:.3g}, and on large inputs by "
                f"{difference.large:.3g} of the largest logit; --tolerance is {self.tolerance:g}"
            )
        write_atomic(self.folder / self.file_name(name), content)
        return {
            "file": self.file_name(name),
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "input": PIXELS if original.normalises else NORMALISED,
            "difference": difference.ordinary,
            "difference_large": difference.large,
        }

    @cached_property
    def _program(self) -> ExportedProgram:
        return pt2.export_program(self.deployed, self.exported.image_shape)

    @cached_property
    def _onnx_content(self) -> bytes:
        exported = self.exported
        metadata = {
            "made_by": "zskt_dist",
            "arch": exported.arch,
            "role": exported.role,
            "run": f"{exported.result['experiment']}/{exported.result['name']}",
            "weights_sha256": exported.sha256,
            "input": PIXELS if self.deployed.normalises else NORMALISED,
            "mean": " ".join(map(str, exported.mean or ())),
            "std": " ".join(map(str, exported.std or ())),
            "class_names": "\n".join(" ".join(name.split()) for name in exported.class_names or ()),
        }
        return onnx.as_bytes(self._program, metadata)


@torch.no_grad()
def pseudo_images(exported: ExportedNetwork) -> Iterator[Tensor]:
    """Images that the run has made, normalised, in batches [B, C, H, W].

    `evaluation.held_out_images` of every snapshot of its generator, and the rounds of an inversion's pool; else none.
    """
    config, world = exported.config, World(torch.device("cpu"))
    sources = stored_sources(config, exported.directory.snapshots, exported.image_shape, world, None)
    for number, source in enumerate(sources):
        if source.iteration is not None:  # not noise
            yield from batches(source, number, config)
    if exported.mean and exported.std:
        standardise = Standardise(exported.mean, exported.std, world.device)
        yield from (standardise(read_round(path)) for path in pool_files(exported.directory.pool))
