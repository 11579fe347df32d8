"""Networks of timm, torchvision and the user: built for any images, and errors that say what would work."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.support.user_networks import Careful, Literal, Plain
from zskt_dist.models import ImageShape, NetworkError, OptionsError, build_network
from zskt_dist.models.registry import ask, uses_all_parameters

GRAY = ImageShape(1, 8, 8)
COLOUR = ImageShape(3, 32, 32)
MINE = "tests.support.user_networks"


def _built(arch: str, shape: ImageShape = COLOUR, classes: int = 7, **options: object) -> nn.Module:
    """Has answered in evaluation and in training."""
    with torch.device("meta"):
        network = build_network(arch, shape, classes, options)
        ask(network, shape)
        assert network(torch.zeros(2, *shape)).shape == (2, classes)
    return network


@pytest.mark.parametrize("arch", ["timm:resnet18", "timm:mobilenetv3_small_050", "timm:vit_tiny_patch16_224"])
def test_timm(arch: str) -> None:
    _built(arch, ImageShape(1, 32, 48))


def test_timm_options() -> None:
    assert _built("timm:resnet18", drop_rate=0.25).drop_rate == 0.25
    fine = _built("timm:vit_tiny_patch16_224", ImageShape(1, 28, 28), patch_size=4)
    assert fine.patch_embed.grid_size == (7, 7)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_torchvision(channels: int) -> None:
    _built("torchvision:squeezenet1_1", ImageShape(channels, 32, 48))


def test_transformers_of_torchvision_are_made_for_the_size_of_the_images() -> None:
    assert _built("torchvision:vit_b_32", ImageShape(1, 64, 64)).encoder.pos_embedding.shape == (1, 1 + 4, 768)
    with pytest.raises(NetworkError, match="takes square images only, got 32x48"):
        _built("torchvision:vit_b_32", ImageShape(3, 32, 48))


@pytest.mark.filterwarnings("ignore:The default weight initialization of GoogleNet")
def test_torchvision_with_several_outputs_in_training() -> None:
    _built("torchvision:googlenet", ImageShape(2, 64, 64))


def test_the_first_convolution_keeps_its_arguments() -> None:
    three = build_network("torchvision:shufflenet_v2_x0_5", COLOUR, 7)
    one = build_network("torchvision:shufflenet_v2_x0_5", ImageShape(1, 32, 32), 7)
    assert three.conv1[0].in_channels == 3
    assert one.conv1[0].in_channels == 1
    for name in ("out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode"):
        assert getattr(one.conv1[0], name) == getattr(three.conv1[0], name)
    assert (one.conv1[0].bias is None) == (three.conv1[0].bias is None)
    assert list(one.state_dict()) == list(three.state_dict())


def test_the_same_seed_makes_the_same_network() -> None:
    for arch in ("timm:resnet10t", "torchvision:mobilenet_v3_small", f"{MINE}:Careful"):
        states = []
        for _ in range(2):
            torch.manual_seed(3)
            states.append(build_network(arch, ImageShape(1, 32, 32), 4).state_dict())
        assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))


def test_a_module_that_draws_when_it_is_imported_changes_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_drawing_networks.py").write_text(
        "from torch import nn\nunused = nn.Linear(9, 9)\ndef f(): return nn.Linear(2, 2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    weights = []
    for _ in range(2):
        torch.manual_seed(0)
        weights.append(build_network("my_drawing_networks:f", GRAY, 2).weight)
    assert torch.equal(*weights)


def test_user_code_is_told_what_it_asks_for() -> None:
    careful = build_network(f"{MINE}:Careful", GRAY, 6, {"width": 5})
    assert isinstance(careful, Careful)
    assert (careful.conv.in_channels, careful.conv.out_channels, careful.head.out_features) == (1, 5, 6)
    plain = build_network(f"{MINE}:Plain", ImageShape(2, 3, 4), 6)
    assert isinstance(plain, Plain)
    assert (plain.fc.in_features, plain.fc.out_features) == (24, 6)
    assert build_network(f"{MINE}:Plain", GRAY, 6, {"num_classes": 2}).fc.out_features == 2  # what the user says wins
    assert build_network(f"{MINE}:needs_depth", GRAY, 9, {"depth": 9})(torch.zeros(2, *GRAY)).shape == (2, 9)


def test_layers_that_wait_for_images_have_seen_some() -> None:
    network = build_network(f"{MINE}:Literal", GRAY, 6)
    assert isinstance(network, Literal)
    assert network.head.weight.shape == (6, 64)
    assert network.training
    assert network(torch.zeros(2, *GRAY)).shape == (2, 6)


def test_user_code_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_networks.py").write_text(
        "from torch import nn\nclass Zoo:\n    @staticmethod\n"
        "    def small(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])  # as a console script starts
    assert build_network("my_own_networks:Zoo.small", GRAY, 6)(torch.zeros(1, *GRAY)).shape == (1, 6)
    assert sys.path[-1] == str(tmp_path), "nothing that is installed is hidden"
    with pytest.raises(NetworkError, match=r"no module 'my_own_network'.*did you mean 'my_own_networks'\?"):
        build_network("my_own_network:Zoo", GRAY, 6)
    with pytest.raises(NetworkError, match=r"has no 'Zoe'; did you mean 'Zoo'\?"):
        build_network("my_own_networks:Zoe", GRAY, 6)
    (tmp_path / "my_wrong_networks.py").write_text("def f(:\n")
    with pytest.raises(NetworkError, match="my_wrong_networks cannot be imported: SyntaxError: "):
        build_network("my_wrong_networks:f", GRAY, 6)
    (tmp_path / "my_needy_networks.py").write_text("import a_package_that_is_not_there\n")
    with pytest.raises(NetworkError, match=r"my_needy_networks cannot be imported: .*a_package_that_is_not_there"):
        build_network("my_needy_networks:f", GRAY, 6)


@pytest.mark.parametrize(
    ("arch", "problem"),
    [
        ("timm:resnet19", r"timm has no network 'resnet19'; did you mean 'resnet18' or"),
        ("timm:hf-hub:timm/resnet18", "timm has no network"),  # would be fetched
        ("torchvision:resnet19", r"torchvision has no classifier 'resnet19'; did you mean 'resnet18' or"),
        ("torchvision:fcn_resnet50", "torchvision has no classifier"),
        ("torchvision:maxvit_t", "cannot be built for 3x32x32: ValueError: Input size"),
        ("timm:inception_v3", "cannot take images of 3x32x32: RuntimeError: .*Kernel size"),
        ("no_such_module:f", "there is no module 'no_such_module' in this folder"),
        ("torch.no_such_module:f", "there is no module 'torch.no_such_module'"),
        (f"{MINE}:Carefull", r"has no 'Carefull'; did you mean 'Careful'\?"),
        (f"{MINE}:xyz", "has no 'xyz'; it has Answer, Careful, Plain, Literal, .*, …$"),
        (f"{MINE}:NUMBER", "is an int, and something to call is needed"),
        (f"{MINE}:text", "returned a str, and a torch.nn.Module is needed"),
        (f"{MINE}:traced", "is a TorchScript module, .*; return the torch.nn.Module that it was made from"),
        (f"{MINE}:broken", r"cannot be built for 3x32x32: KeyError: 'depth' \(user_networks.py, line \d+\)"),
        (f"{MINE}:two_classes", "cannot take images of 3x32x32: RuntimeError: "),
        (f"{MINE}:feature_maps", "cannot take images of 3x32x32: RuntimeError: "),
        (f"{MINE}:needs_depth:x", "is no import path"),
        ("../networks:f", "is no import path"),
        ("torch.nn:Flatten", "returned a network without parameters"),
    ],
)
def test_what_cannot_be_had_is_said(arch: str, problem: str) -> None:
    with pytest.raises(NetworkError, match=problem) as caught:
        _built(arch)
    assert not isinstance(caught.value, OptionsError)
    assert "\n" not in str(caught.value)


def test_a_network_for_other_classes() -> None:
    with pytest.raises(NetworkError, match="returns logits of 2 classes, and the data has 7"):
        _built(f"{MINE}:two_classes", GRAY)
    with pytest.raises(NetworkError, match=r"returns a tensor \[2, 4, 6, 6\] where logits"):
        _built(f"{MINE}:feature_maps", GRAY)


def test_the_same_network_twice() -> None:
    """Teacher and student would be one."""
    build_network(f"{MINE}:always_the_same", GRAY, 10)
    with pytest.raises(NetworkError, match="must make a new one each time"):
        build_network(f"{MINE}:always_the_same", GRAY, 10)


@pytest.mark.parametrize(
    ("arch", "options", "problem"),
    [
        ("lenet", {"widht": 2}, r"unexpected keyword argument 'widht'; it takes width; did you mean 'width'\?"),
        ("lenet-2", {"width": 2}, "width is 2 already"),
        ("lenet", {"width": "wide"}, "TypeError"),
        ("wrn-16-1", {"width": 2}, "width is 1 already"),
        ("wrn-16-1", {"depths": 2}, "it takes no options"),
        ("resnet18", {"num_classes": 3}, "num_classes is 7 already"),
        ("timm:resnet18", {"no_such": 2}, "unexpected keyword argument 'no_such'"),
        ("timm:resnet18", {"pretrained": True}, "pretrained is no option"),
        ("timm:resnet18", {"checkpoint_path": "x.pt"}, "weights come from teacher.checkpoint"),
        ("torchvision:resnet18", {"weights": "DEFAULT"}, "weights is no option"),
        ("torchvision:vit_b_16", {"patch_size": 8}, "multiple values for keyword argument 'patch_size'"),
        ("torchvision:resnet18", {"no_such": 2}, "unexpected keyword argument 'no_such'"),
        (f"{MINE}:Careful", {"widht": 2}, r"'widht'; it takes width, dropout; did you mean 'width'\?"),
        (f"{MINE}:needs_depth", {}, "missing a required argument: 'depth'; it takes depth"),
    ],
)
def test_wrong_options_are_named(arch: str, options: dict[str, object], problem: str) -> None:
    with pytest.raises(OptionsError, match=problem):
        build_network(arch, COLOUR, 7, options)


class _Skips(nn.Module):
    """Skips its inner layer every other time."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner = nn.Linear(64, 4), nn.Linear(4, 4)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        out = self.first(x.flatten(1))
        return out if self.calls % 2 == 0 else self.inner(out)


def test_parameters_without_a_part_in_the_answer_are_noticed() -> None:
    torch.manual_seed(0)
    for network, all_used in (
        (build_network(f"{MINE}:Careful", GRAY, 4), False),
        (build_network(f"{MINE}:Plain", GRAY, 4), True),
        (build_network("torchvision:squeezenet1_1", COLOUR, 4), True),
        (_Skips(), False),
    ):
        before = {name: value.clone() for name, value in network.state_dict().items()}
        shape = COLOUR if "features.0.weight" in before else GRAY
        network.eval()
        assert uses_all_parameters(network, shape) == all_used
        assert not network.training
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        assert all(parameter.grad is None for parameter in network.parameters())
