"""Weights as other people save them, in networks that other people have written: what torch would make of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_model, save_file, save_model
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.optim.swa_utils import AveragedModel

from zskt_dist.errors import ConfigError
from zskt_dist.models import ImageShape, LeNet, build_network
from zskt_dist.networks.fitting import fit_weights
from zskt_dist.networks.state_dicts import StateDict
from zskt_dist.networks.weights import WeightsFile, load_into, read_weights, save_weights

KEY = "teacher.checkpoint"
Weights = dict[str, Tensor]


def _lenet(seed: int = 0) -> LeNet:
    torch.manual_seed(seed)
    return LeNet(image_size=(8, 8))


def _net() -> nn.Sequential:
    """With modules in modules, and batch norm."""
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3)]
    return nn.Sequential(nn.Sequential(*layers), nn.Flatten(), nn.Linear(64, 10))


def _prefixed(weights: Weights, prefix: str) -> Weights:
    return {prefix + name: tensor for name, tensor in weights.items()}


def _equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in pairs)


def _load(target: nn.Module, weights: Weights) -> nn.Module:
    load_into(target, weights, KEY, "t", 10)
    return target


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "_orig_mod.", "module._orig_mod.", "model.", "network.", "model.module."),
        *("net.", "module.net.", "student.encoder.", "_fsdp_wrapped_module.model."),
    ],
)
def test_one_prefix_of_all_names_is_taken_off(tmp_path: Path, prefix: str, caplog: pytest.LogCaptureFixture) -> None:
    source = _net()
    save_file(_prefixed(source.state_dict(), prefix), tmp_path / "t.safetensors")
    assert _equal(_load(_net(), read_weights(tmp_path / "t.safetensors", KEY)), source)
    assert not caplog.text


def test_wrappers_inside_a_network() -> None:
    """DataParallel around the features alone, as in torch's ImageNet example; compiled blocks, blocks under FSDP."""
    for inner in ("module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module.module"):
        source = _net()
        weights = {name.replace("0.", f"0.{inner}.", 1): value for name, value in source.state_dict().items()}
        assert f"0.{inner}.0.weight" in weights
        assert _equal(_load(_net(), weights), source)
        assert _equal(_load(_net(), _prefixed(weights, "net.")), source)


def test_a_network_that_is_itself_wrapped() -> None:
    source = _net()
    for target in (nn.DataParallel(_net()), nn.Sequential(nn.DataParallel(_net()[0]), nn.Flatten(), nn.Linear(64, 10))):
        _load(target, source.state_dict())
        assert [*map(torch.Tensor.sum, target.parameters())] == [*map(torch.Tensor.sum, source.parameters())]


def test_prefixes_that_belong_to_the_network_stay() -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Linear(2, 2)

    source, target = Wrapper(), Wrapper()
    for prefix in ("", "module.", "model."):
        assert _equal(_load(target, _prefixed(source.state_dict(), prefix)), source)


@pytest.mark.parametrize(("one", "other"), [("", "model."), ("student.", "teacher."), ("model.", "ema_model.module.")])
def test_weights_that_are_there_twice_are_not_chosen_from(one: str, other: str) -> None:
    weights = nn.Linear(2, 2).state_dict()
    named = other.removesuffix("module.").replace(".", r"\.")
    shown = one.replace(".", r"\.") or rf"{named}, or teacher\.prefix='' for those at the top"
    with pytest.raises(
        ConfigError, match=rf"more than once, .* below {named}; to choose, say teacher\.prefix={shown}$"
    ):
        _load(nn.Linear(2, 2), _prefixed(weights, one) | _prefixed(weights, other))


def test_two_weights_never_become_one() -> None:
    weights = nn.Linear(2, 2).state_dict()
    with pytest.raises(ConfigError, match=r"unexpected: module\.weight, module\.bias"):
        _load(nn.Linear(2, 2), weights | _prefixed(weights, "module."))
    with pytest.raises(ConfigError, match=r"unexpected: module\.weight, module\.bias"):
        _load(nn.Linear(2, 2), _prefixed(weights, "module.") | weights)


@pytest.mark.timeout(10)
def test_names_of_endless_parts_take_no_time() -> None:
    with pytest.raises(ConfigError, match="missing: weight, bias"):
        _load(nn.Linear(2, 2), {"a." * 1_000_000 + "weight": torch.zeros(2, 2)})


def test_modules_that_are_not_there() -> None:
    source, target = _net(), _net()
    target.register_module("aux", None)
    assert _equal(_load(target, {**source.state_dict(), "aux.fc.weight": torch.zeros(3)}), source)


def test_a_file_without_weights() -> None:
    with pytest.raises(ConfigError, match=r"does not fit the architecture; missing: weight, bias$"):
        _load(nn.Linear(2, 2), {})


def test_part_of_the_weights_below_a_prefix() -> None:
    weights = _prefixed(_net()[:1].state_dict(), "net.") | _prefixed(nn.Linear(64, 10).state_dict(), "head.")
    with pytest.raises(ConfigError, match=r"below the prefix net\.; missing: 2\.weight, 2\.bias; beside: head\.weight"):
        _load(_net(), weights)


ASIDE: dict[str, Weights] = {
    "averaged": {"n_averaged": torch.tensor(3)},
    "thop": {f"{at}{name}": torch.zeros(1).double() for at in ("", "conv1.") for name in ("total_ops", "total_params")},
    "a loss": {"criterion.weight": torch.ones(10)},
    "another loss": {"train_loss_fn.pos_weight": torch.ones(10)},
    "its own network": {"perceptual_loss.net.0.weight": torch.ones(3, 3)},
    "metrics": {"val_acc.correct": torch.tensor(0.5), "metrics.auroc.thresholds": torch.zeros(5)},
    "counts": {"confusion.confmat": torch.zeros(10, 10, dtype=torch.long), "seen": torch.tensor(True)},
    "an index": {"embeddings.position_ids": torch.arange(5)[None]},
    "auxiliary heads": {"aux1.fc.weight": torch.zeros(10, 4), "AuxLogits.conv.bias": torch.zeros(4)},
}


@pytest.mark.parametrize("name", ASIDE)
@pytest.mark.parametrize("prefix", ["", "net."])
def test_what_has_no_part_in_the_answer_is_left_out_and_said(
    name: str, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    source, extra = _lenet(), ASIDE[name]
    assert _equal(_load(_lenet(1), _prefixed(source.state_dict(), prefix) | extra), source)
    first = ", ".join([*extra][:3])
    assert f"{KEY}=t: ignores {len(extra)} name" in caplog.text
    assert f"that the network lacks: {first}" in caplog.text


@pytest.mark.parametrize(
    "name",
    [
        "conv3.weight",
        "fc3.weight_mask",
        "relu.weight",
        "mean",
        "lossless.weight",
        "block.aux_conv.weight",
        "symmetric.weight",
        "auxiliary.weight",
        "floss.weight",
    ],
)
def test_what_may_be_another_architecture_is_refused(name: str) -> None:
    """A PReLU's weight is one number, a normalisation is three: a network may compute with them."""
    weights, extra = _lenet().state_dict(), {name: torch.ones(1)}
    with pytest.raises(ConfigError, match=rf"does not fit the architecture; unexpected: {name}"):
        _load(_lenet(), weights | extra)
    with pytest.raises(
        ConfigError, match=rf"beside it lies .* as well: {name}; if it is not, say teacher.prefix=net.$"
    ):
        _load(_lenet(), _prefixed(weights, "net.") | extra)


def test_the_prefix_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source, other = _lenet(1), _lenet(2)
    weights = _prefixed(source.state_dict(), "model.") | _prefixed(other.state_dict(), "ema.module.")
    save_file(weights | {"mean": torch.zeros(3)}, tmp_path / "t.safetensors")
    file = WeightsFile.open(tmp_path / "t.safetensors", KEY)
    for prefix, right in (("model.", source), ("model", source), ("ema", other), ("ema.module.", other)):
        assert _equal(_load(_lenet(), file.tensors("teacher", prefix)), right)
    assert "takes the names below model., not ema., mean" in caplog.text
    third = _lenet(3)
    save_file(weights | third.state_dict(), tmp_path / "three.safetensors")
    file_of_three = WeightsFile.open(tmp_path / "three.safetensors", KEY)
    assert _equal(_load(_lenet(), file_of_three.tensors("teacher", "")), third)
    with pytest.raises(ConfigError, match=r"^teacher.prefix='net.': no name .*; they begin with ema\., mean, model\.$"):
        file.tensors("teacher", "net.")


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_counters_that_older_files_lack_start_at_zero(device: str) -> None:
    weights = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).state_dict()
    del weights["1.num_batches_tracked"]
    with torch.device(device):
        target = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    if device == "cpu":
        target[1].num_batches_tracked += 3
    _load(target, _prefixed(weights, "module."))
    assert target[1].num_batches_tracked.is_meta or target[1].num_batches_tracked == 0
    del weights["1.running_mean"]
    with pytest.raises(ConfigError, match=r"does not fit the architecture; missing: 1\.running_mean$"):
        _load(target, weights)


def test_half_precision_becomes_the_precision_of_the_network() -> None:
    target = nn.Linear(2, 2)
    _load(target, {"weight": torch.full((2, 2), 0.1, dtype=torch.bfloat16), "bias": torch.zeros(2)})
    assert target.weight.dtype == torch.float32
    assert target.weight[0, 0].item() == 0.10009765625  # the nearest number with eight bits


class _Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(x.flatten(1)).relu()).relu())


def test_tied_weights_are_saved_under_both_names(tmp_path: Path) -> None:
    source, target = _Tied(), _Tied()
    save_weights(tmp_path / "t.safetensors", source, {})
    weights = read_weights(tmp_path / "t.safetensors", KEY)
    assert {"a.weight", "b.weight"} <= weights.keys()
    assert _equal(_load(target, weights), source)
    assert target.a.weight is target.b.weight


@pytest.mark.parametrize("prefix", ["", "module.", "net."])
def test_tied_weights_of_which_a_file_has_one(tmp_path: Path, prefix: str) -> None:
    """As `safetensors.torch.save_model` leaves them."""
    source, target, right = _Tied(), _Tied(), _Tied()
    save_model(source, str(tmp_path / "t.safetensors"))
    load_model(right, tmp_path / "t.safetensors")
    weights = read_weights(tmp_path / "t.safetensors", KEY)
    assert len(weights) == 5
    assert _equal(_load(target, _prefixed(weights, prefix)), right)
    assert target.a.weight is target.b.weight
    with torch.device("meta"):
        _load(_Tied(), weights)
    target.b.weight = nn.Parameter(torch.zeros(64, 64))
    with pytest.raises(ConfigError, match=r"missing: (a|b)\.weight$"):
        _load(target, weights)


def test_averages_of_torch(tmp_path: Path) -> None:
    source = _net()
    averaged = AveragedModel(source).state_dict()
    for content in (averaged, {"model_ema": averaged, "epoch": 1}, {"state_dict_ema": _prefixed(averaged, "model.")}):
        torch.save(content, tmp_path / "t.pth")
        assert _equal(_load(_net(), read_weights(tmp_path / "t.pth", KEY)), source)


class _Renamed(nn.Linear):
    """Was called otherwise in its first version, and had half of its present weights."""

    _version = 2

    def _load_from_state_dict(self, state: Weights, prefix: str, about: dict[str, int], *rest: object) -> None:  # type: ignore[override]
        if about.get("version", 1) < 2:
            state[f"{prefix}weight"] = 2 * state.pop(f"{prefix}kernel")
        super()._load_from_state_dict(state, prefix, about, *rest)  # type: ignore[arg-type]


class _Hooked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = _Renamed(4, 10)
        self.register_load_state_dict_pre_hook(self._rename)

    @staticmethod
    def _rename(_module: nn.Module, state: Weights, prefix: str, *_: object) -> None:
        for name in [name for name in state if name.startswith(f"{prefix}dense.")]:
            state[name.replace("dense.", "fc.", 1)] = state.pop(name)


@pytest.mark.parametrize("prefix", ["", "module.", "net.", "net.module."])
def test_loaders_and_hooks_of_modules_run(tmp_path: Path, prefix: str) -> None:
    torch.manual_seed(0)
    old = {"dense.kernel": torch.randn(10, 4), "dense.bias": torch.randn(10)}
    right = _Hooked()
    right.load_state_dict(old)
    assert torch.equal(right.fc.weight, 2 * old["dense.kernel"])
    assert _equal(_load(_Hooked(), _prefixed(old, prefix)), right)

    outer: nn.Module = right  # a file of today says its versions, by paths with prefixes: nothing is doubled again
    for part in prefix.split(".")[-2::-1]:
        outer = nn.ModuleDict({part: outer})
    torch.save(outer.state_dict(), tmp_path / "t.pt")
    assert _equal(_load(_Hooked(), read_weights(tmp_path / "t.pt", KEY)), right)


def _weight_normed(wrap: Callable[[nn.Module], nn.Module]) -> nn.Sequential:
    return nn.Sequential(wrap(nn.Conv2d(1, 4, 3)), nn.Flatten(), wrap(nn.Linear(144, 10)))


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_names_of_the_older_weight_norm(prefix: str) -> None:
    source = _weight_normed(nn.utils.weight_norm)
    right, target = (_weight_normed(parametrizations.weight_norm) for _ in range(2))
    weights = {name: value.detach() for name, value in source.state_dict().items()}
    assert {"0.weight_g", "0.weight_v"} <= weights.keys()
    right.load_state_dict(weights)
    _load(target, _prefixed(weights, prefix))
    images = torch.randn(3, 1, 8, 8)
    assert _equal(target, right)
    assert torch.equal(target(images), right(images))
    torch.testing.assert_close(target(images), source(images))


def test_a_loader_that_fails_is_told_in_one_line() -> None:
    class Strict(nn.Linear):
        def _load_from_state_dict(self, *_: object) -> None:  # type: ignore[override]
            raise KeyError("no such version\nat all")

    with pytest.raises(ConfigError, match=r"does not fit the architecture; KeyError: .*no such version") as caught:
        _load(Strict(2, 2), nn.Linear(2, 2).state_dict())
    assert "\n" not in str(caught.value)


def _odd(network: nn.Module, how: Callable[[torch.Tensor], torch.Tensor]) -> StateDict:
    return StateDict.of(network.state_dict() | {"fc.weight": how(network.state_dict()["fc.weight"])})


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        (lambda tensor: tensor.to("meta"), "as a meta tensor, which has no numbers; save all weights as plain tensors"),
        (lambda tensor: tensor.to_sparse(), r"sparse_coo tensor \(tensor.to_dense\(\) makes it plain\)"),
        (lambda tensor: tensor.to_sparse_csr(), "torch.sparse_csr tensor"),
        (lambda tensor: tensor.to(torch.complex64), "as a tensor of complex numbers"),
        (lambda tensor: (tensor * 100).to(torch.int8), "holds fc.weight as int8, where the network has fractions"),
        (lambda tensor: tensor > 0, "holds fc.weight as bool"),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_tensors_that_are_not_plain_numbers(how: Callable[[torch.Tensor], torch.Tensor], problem: str) -> None:
    network = build_network("wrn-10-1", ImageShape(1, 8, 8), 10)
    with pytest.raises(ValueError, match=problem):
        fit_weights(network, _odd(network, how))


def test_negative_variances() -> None:
    network = build_network("wrn-10-1", ImageShape(1, 8, 8), 10)
    weights = StateDict.of(network.state_dict())
    name = next(name for name in weights if name.endswith("running_var"))
    weights[name] = -weights[name]
    with pytest.raises(ValueError, match=f"has negative variances, first in {name}"):
        fit_weights(network, weights)
