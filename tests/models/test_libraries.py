"""What timm and torchvision say about ImageNet networks: known numbers, and silence about everything else."""

import sys

import pytest

from zskt_dist.models import ImageShape, InputSpec, input_spec_of_arch

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("arch", "shape", "statistics"),
    [
        ("timm:resnet18", (3, 224, 224), IMAGENET),
        ("timm:resnet18.a1_in1k", (3, 224, 224), IMAGENET),
        ("timm:vit_tiny_patch16_224", (3, 224, 224), ((0.5,) * 3, (0.5,) * 3)),
        ("torchvision:resnet18", (3, 224, 224), IMAGENET),
        ("torchvision:inception_v3", (3, 299, 299), IMAGENET),
    ],
)
def test_networks_of_imagenet(arch: str, shape: tuple[int, int, int], statistics: object) -> None:
    assert input_spec_of_arch(arch) == InputSpec(ImageShape(*shape), 1000, statistics)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arch",
    [
        *("lenet", "wrn-16-1", "mine.networks:small", "timm", "timm:no_such", "timm:resnet18.no_such"),
        *("torchvision:no_such", "torchvision:r3d_18", "torchvision:fasterrcnn_resnet50_fpn"),  # no image classifiers
    ],
)
def test_nothing_is_declared(arch: str) -> None:
    assert input_spec_of_arch(arch) == InputSpec()


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_library_that_is_not_installed_declares_nothing(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    assert input_spec_of_arch(f"{library}:resnet18") == InputSpec()
