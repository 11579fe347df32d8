"""Pairs of layers of different families, and the attention term that they make."""

import copy
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision
from rich.console import Console
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from tests.support.configs import tiny_config
from tests.support.families import SHAPE, ChannelsLast, Tokens, narrowing, plain, strided
from zskt_dist.config import Config, load_config
from zskt_dist.distributed.world import World
from zskt_dist.errors import ConfigError, UserError
from zskt_dist.launch.preflight import print_plan
from zskt_dist.models import ImageShape, LeNet, WideResNet, build_network
from zskt_dist.networks.attention import Attention, pair_layers, tap_pair
from zskt_dist.runs.directory import RunDirectory
from zskt_dist.tasks.memory import estimate_memory
from zskt_dist.tasks.transfer import TransferTraining
from zskt_dist.training.job import Job
from zskt_dist.training.worker import Worker

ALONE = World(torch.device("cpu"))


def _pair(teacher: nn.Module, student: nn.Module, *overrides: str, shape: ImageShape = SHAPE) -> Attention:
    return pair_layers(load_config(None, overrides), teacher, student, shape)


def _names(attention: Attention) -> list[tuple[str, str]]:
    return list(zip(attention.teacher, attention.student, strict=True))


NAMED = ("loss.taps.teacher=[act1,conv2]", "loss.taps.student=[act1,act2]")


@pytest.mark.parametrize(
    ("teacher", "student", "overrides", "expected"),
    [
        (plain, strided, (), [("conv2", "act1")]),
        (partial(WideResNet, 10, 1, in_channels=1), plain, (), [("group1", "act1"), ("group2", "conv2")]),
        (plain, partial(LeNet, image_size=(8, 8)), (), [("act1", "conv1"), ("conv2", "conv2")]),
        (narrowing, strided, ("loss.resize_maps=true",), [("pool", "act1")]),  # 3x3 and 4x4: 6x6 is further
        (plain, strided, (*NAMED, "loss.resize_maps=true"), [("act1", "act1"), ("conv2", "act2")]),
        (plain, plain, ("loss.taps.teacher=[conv1]", "loss.taps.student=[norm1]"), [("conv1", "norm1")]),
        (plain, strided, ("loss.taps=none",), []),
        (plain, strided, ("loss.beta=0",), []),
    ],
)
def test_pairs(
    teacher: Callable[[], nn.Module],
    student: Callable[[], nn.Module],
    overrides: tuple[str, ...],
    expected: list[tuple[str, str]],
) -> None:
    attention = _pair(teacher(), student(), *overrides)
    assert _names(attention) == expected
    assert attention.warning is None


@pytest.mark.parametrize(
    ("arch", "names"), [("wrn-10-1", ["group1", "group2", "group3"]), ("lenet", ["conv1", "conv2"])]
)
def test_networks_of_one_family_pair_all_that_they_declare(arch: str, names: list[str]) -> None:
    networks = [build_network(arch, SHAPE, 10) for _ in range(2)]
    assert _names(_pair(*networks)) == [(name, name) for name in names]
    assert _names(_pair(*networks, "loss.attention_layers=[1]")) == [(names[1], names[1])]
    tiny = ImageShape(1, 4, 4)  # where the last maps of a wide residual network are single pixels
    if arch == "wrn-10-1":
        assert _names(_pair(*networks, shape=tiny)) == [(name, name) for name in names]


def test_declared_layers_that_do_not_pair_one_by_one_pair_by_size() -> None:
    teacher, student = build_network("wrn-10-1", SHAPE, 10), build_network("lenet", SHAPE, 10)
    attention = _pair(teacher, student)
    assert _names(attention) == [("group1", "conv1"), ("group2", "conv2")]
    assert attention.warning is not None
    assert "group1 8x8, group2 4x4, group3 2x2" in attention.warning
    with pytest.raises(ConfigError, match="student has 2 block outputs") as raised:
        _pair(teacher, student, "loss.attention_layers=[2]")
    assert raised.value.key == "loss.attention_layers"


class _Pair(nn.Module):
    """Gives its input twice."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class _Declaring(nn.Module):
    """Maps of 8x8, a part that gives two tensors, and one that is not used."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.attention_layers = names
        self.conv1, self.pair = nn.Conv2d(1, 3, 3, padding=1), _Pair()
        self.unused, self.fc = nn.Linear(3, 3), nn.Linear(3, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pair(self.conv1(x))[0].mean(dim=(2, 3)))


@pytest.mark.parametrize("overrides", [(), ("loss.attention_layers=[0]",)])
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("conv2", "no such layer; did you mean 'conv1'?"),
        ("unused", "takes no part in a forward pass"),
        ("pair", "gives no single tensor"),
        ("fc", "gives [B, 10], where maps are [B, C, H, W]"),
    ],
)
def test_declared_layers_that_cannot_be_compared(name: str, problem: str, overrides: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as raised:
        _pair(_Declaring("conv1"), _Declaring("conv1", name), *overrides, "student.arch=mine:net")
    assert str(raised.value) == f"student.arch='mine:net': declares attention_layers {name!r}: {problem}"
    with pytest.raises(UserError) as raised:  # networks that nobody has named, as from Python
        _pair(_Declaring("conv1"), _Declaring("conv1", name), *overrides)
    assert str(raised.value) == f"student declares attention_layers {name!r}: {problem}"
    assert _names(_pair(_Declaring("conv1"), _Declaring("conv1"), *overrides)) == [("conv1", "conv1")]


def test_families_of_torchvision() -> None:
    shape = ImageShape(3, 32, 32)
    teacher, student = torchvision.models.resnet18(num_classes=10), torchvision.models.mobilenet_v2(num_classes=10)
    attention = _pair(teacher, student, shape=shape)
    assert attention.as_json() == [
        {"teacher": "relu", "student": "features.1", "size": [16, 16]},
        {"teacher": "layer1", "student": "features.3", "size": [8, 8]},
        {"teacher": "layer2", "student": "features.6", "size": [4, 4]},
        {"teacher": "layer3", "student": "features.13", "size": [2, 2]},
    ]
    taps = tap_pair(load_config(None), teacher.eval(), student.eval(), attention)
    x = torch.randn(2, *shape)
    for tapped in taps:
        assert [activation.shape[2] for activation in tapped(x).activations] == [16, 8, 4, 2]


@pytest.mark.parametrize("transformer", [Tokens(), ChannelsLast()])
def test_transformers_have_no_maps_and_a_warning_says_what_was_considered(transformer: nn.Module) -> None:
    attention = _pair(plain(), transformer)
    assert attention.pairs == ()
    assert attention.as_json() == []
    assert attention.warning is not None
    for part in ("teacher: act1 8x8, conv2 4x4; student: no layer with maps", "loss.taps.teacher", "zskt_dist.layers"):
        assert part in attention.warning
    assert "loss.resize_maps" not in attention.warning  # would not help


def test_a_warning_names_resizing_where_it_would_help() -> None:
    attention = _pair(narrowing(), strided())
    assert attention.pairs == ()
    assert "loss.resize_maps=true" in str(attention.warning)
    assert "act1 6x6, pool 3x3" in str(attention.warning)


@pytest.mark.parametrize(
    ("student", "names", "key", "parts"),
    [
        (plain(), ["act1", "conv3"], "loss.taps.student", ["conv3", "did you mean 'conv2'", "zskt_dist.layers lenet"]),
        (Tokens(), ["blocks.0", "blocks.1"], "loss.taps.student", ["[B, 17, 6]", "tokens", "[B, C, H, W]"]),
        (Tokens(), ["unused", "embed"], "loss.taps.student", ["unused", "takes no part"]),
        (ChannelsLast(), ["blocks.0", "embed"], "loss.taps.student", ["[B, 4, 4, 6]", "channels last"]),
        (plain(), ["act1", "fc"], "loss.taps.student", ["[B, 10]"]),
        (strided(), ["act1", "pool"], "loss.taps.student", ["single pixel"]),
        (strided(), ["act1", "act2"], "loss.beta", ["act1 8x8, conv2 4x4", "act1 4x4, act2 2x2", "resize_maps"]),
    ],
)
def test_named_layers_that_cannot_be_compared(student: nn.Module, names: list[str], key: str, parts: list[str]) -> None:
    taps = ("loss.taps.teacher=[act1,conv2]", f"loss.taps.student=[{','.join(names)}]", "student.arch=lenet")
    with pytest.raises(ConfigError) as raised:
        _pair(plain(), student, *taps)
    assert raised.value.key == key
    assert all(part in str(raised.value) for part in parts), raised.value


def test_positions_are_for_networks_that_declare_layers() -> None:
    with pytest.raises(ConfigError, match=r"loss\.taps"):
        _pair(plain(), build_network("lenet", SHAPE, 10), "loss.attention_layers=[0]")


def _task(folder: Path, teacher: nn.Module, student: nn.Module, *overrides: str) -> TransferTraining:
    config = tiny_config(folder, "transfer.student_steps=1", *overrides)
    return TransferTraining(config, teacher.eval().requires_grad_(False), student, SHAPE, ALONE)


def _map(network: nn.Sequential, until: str, x: Tensor, size: int) -> Tensor:
    """Mean square over channels of what the layers up to `until` give, on size x size pixels, of unit length."""
    for name, layer in network.named_children():
        x = layer(x)
        if name == until:
            break
    maps = functional.interpolate(x.square().mean(dim=1, keepdim=True), (size, size), mode="area").flatten(1)
    return maps / maps.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("folded", ["true", "false"])
@pytest.mark.parametrize(
    ("build", "overrides", "expected"),
    [
        ((plain, strided), (), [("conv2", "act1", 4)]),
        ((plain, plain), ("loss.taps.teacher=[norm2]", "loss.taps.student=[conv2]"), [("norm2", "conv2", 4)]),
        ((plain, plain), (), [("act1", "act1", 8), ("conv2", "conv2", 4)]),
        ((narrowing, strided), ("loss.resize_maps=true",), [("pool", "act1", 3)]),
        ((strided, plain), (*NAMED, "loss.resize_maps=true"), None),
    ],
)
def test_attention_term_against_a_direct_computation(
    tmp_path: Path,
    build: tuple[Callable[[], nn.Sequential], Callable[[], nn.Sequential]],
    overrides: tuple[str, ...],
    expected: list[tuple[str, str, int]] | None,
    folded: str,
) -> None:
    """The term of the first student step, of images that can be generated again. Folding changes no tapped layer."""
    if expected is None:
        overrides = ("loss.taps.teacher=[act1,act2]", "loss.taps.student=[act1,conv2]", "loss.resize_maps=true")
        expected = [("act1", "act1", 4), ("act2", "conv2", 2)]
    torch.manual_seed(3)
    teacher, student = build[0](), build[1]()
    if isinstance(getattr(teacher, "norm2", None), nn.BatchNorm2d):  # as of a trained one
        for norm in (teacher.norm1, teacher.norm2):
            nn.init.uniform_(norm.running_mean, -1, 1)
            nn.init.uniform_(norm.weight, 0.2, 2)
    before = copy.deepcopy(student)
    task = _task(tmp_path, teacher, student, *overrides, f"speed.folded_teacher={folded}")
    metrics = task.step(0)
    with torch.no_grad():
        x = task.engines["generator"].ask(task.noise(0)(0))
        terms = [
            (_map(before, layer, x, size) - _map(teacher, of_teacher, x, size)).square().mean()
            for of_teacher, layer, size in expected
        ]
    assert metrics["attention"].item() == pytest.approx(sum(term.item() for term in terms), rel=1e-4)
    assert task.attention.as_json() == [
        {"teacher": of_teacher, "student": layer, "size": [size, size]} for of_teacher, layer, size in expected
    ]


def test_nothing_that_fits_is_as_beta_0(tmp_path: Path) -> None:
    states = []
    for overrides in ((), ("loss.beta=0",), ("loss.taps=none",)):
        torch.manual_seed(3)
        task = _task(tmp_path, Tokens(), plain(), *overrides)
        metrics = task.step(0)
        assert metrics["attention"].item() == 0
        assert (task.attention.warning is not None) == (not overrides)
        states.append(task.engines["student"].raw.state_dict())
    for state in states[1:]:
        assert all(torch.equal(value, states[0][name]) for name, value in state.items())


def test_micro_batches_pair_as_whole_batches_do(tmp_path: Path) -> None:
    """Without batch norm the term is a mean over images, so four and four images give that of eight."""
    values = []
    for micro_batch in ("null", "4"):
        torch.manual_seed(3)
        task = _task(tmp_path, narrowing(), strided(), "loss.resize_maps=true", f"engine.micro_batch={micro_batch}")
        task.engines["generator"].raw.eval()
        values.append(task.step(0)["attention"].item())
    assert values[1] == pytest.approx(values[0], rel=1e-3)


@pytest.mark.parametrize("build", [plain, strided])
def test_compiled_taps_of_found_layers(build: Callable[[], nn.Module]) -> None:
    """Also where an activation works in place on what is tapped."""
    student = build()
    attention = _pair(plain(), student)
    _, tapped = tap_pair(load_config(None), plain(), student, attention)
    compiled = copy.deepcopy(tapped)
    compiled.compile(backend="eager", fullgraph=True)
    x = torch.randn(2, *SHAPE)
    expected, got = tapped(x), compiled(x)
    assert len(got.activations) == len(attention.pairs) > 0
    for mine, theirs in zip(got.activations, expected.activations, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_fake_tensors_pair_as_real_ones() -> None:
    with FakeTensorMode():
        fake = _pair(plain(), strided())
    assert fake == _pair(plain(), strided())


def test_memory_of_families_that_declare_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimate runs an iteration, and what finding the layers held is not part of its peaks."""

    def build(arch: str, *_: object, **__: object) -> nn.Module:
        return plain() if arch == "lenet-2" else strided()

    monkeypatch.setattr("zskt_dist.networks.building.build_network", build)
    settings = ["teacher.arch=lenet-2", "student.arch=lenet", "batch_size=16", "generator.channels=[8,4]"]
    config: Config = load_config(None, settings)
    memory = estimate_memory(config, SHAPE, 10)
    without = estimate_memory(load_config(None, [*settings, "loss.taps=none"]), SHAPE, 10)
    assert memory.networks == without.networks
    assert without.generator_step <= memory.generator_step < 1.2 * without.generator_step  # taps hold what they read
    assert without.student_step <= memory.student_step < 1.2 * without.student_step


def test_a_run_records_what_it_compared_and_warns_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """LeNet has no 2x2 maps for a wide residual network's third group; another teacher of its own kind has all."""
    for number, (teacher, command) in enumerate([("wrn-10-1", "train"), ("wrn-10-1", "distill"), ("lenet", "train")]):
        overrides = ("iterations=2", "supervised.iterations=2", f"teacher.arch={teacher}", f"name=run{number}")
        job = Job.plan(command, tiny_config(tmp_path, *overrides, "evaluation.held_out_images=8"))
        job.directory.begin(command, job.config, None)
        caplog.clear()
        Worker(job, ALONE).run()
        result = job.directory.finished()
        assert result is not None
        first = "conv1" if teacher == "lenet" else "group1"
        assert result["attention"][0] == {"teacher": first, "student": "conv1", "size": [8, 8]}
        assert [pair["size"] for pair in result["attention"]] == [[8, 8], [4, 4]]
        warnings = [record.getMessage() for record in caplog.records if "pair by size" in record.getMessage()]
        assert len(warnings) == (teacher == "wrn-10-1")
    made = RunDirectory(next(tmp_path.glob("runs/teachers/*"))).finished()
    assert made is not None
    assert made["attention"] is None  # a teacher is compared with nothing


def test_the_plan_shows_what_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zskt_dist.launch.preflight._memory", lambda _: ("", None))  # takes seconds

    def plan(*overrides: str) -> str:
        console = Console(file=io.StringIO(), width=200)
        print_plan("train", tiny_config(tmp_path, *overrides), [], console)
        return console.file.getvalue()

    shown = plan("teacher.arch=wrn-10-1")
    assert "compares group1 with conv1 8x8, group2 with conv2 4x4" in shown
    assert shown.count("only some attention maps") == 1
    assert "compares no layers" in plan("loss.taps=none")
    with pytest.raises(ConfigError, match=r"^loss\.taps\.teacher='conv3': no such layer"):
        plan("loss.taps.teacher=[conv3]", "loss.taps.student=[conv2]")
