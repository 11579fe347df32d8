"""Files as torchvision and Hugging Face save them: loaded as these libraries load them."""

import re
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models
from torchvision.models import densenet

from zskt_dist.config import Config, load_config
from zskt_dist.errors import ConfigError
from zskt_dist.models import ImageShape, build_network
from zskt_dist.networks.building import read_network
from zskt_dist.networks.weights import load_into, read_weights, save_weights

KEY = "teacher.checkpoint"
COLOUR = ImageShape(3, 32, 32)


def _equal(one: nn.Module, other: nn.Module) -> bool:
    """In names, weights and answers."""
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    images = torch.randn(2, *COLOUR)
    with torch.no_grad():
        answers = one.eval()(images), other.eval()(images)
    return all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in pairs) and torch.equal(*answers)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_names_in_torchvisions_files_of_densenets(prefix: str) -> None:
    torch.manual_seed(0)
    source, right = (models.densenet121(num_classes=10) for _ in range(2))
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name): value
        for name, value in source.state_dict().items()
        if "num_batches_tracked" not in name
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    stored = SimpleNamespace(get_state_dict=lambda **_: dict(old))
    densenet._load_state_dict(right, stored, progress=False)  # type: ignore[arg-type]
    target = build_network("torchvision:densenet121", COLOUR, 10)
    load_into(target, {prefix + name: value for name, value in old.items()}, KEY, "t")
    assert _equal(target, right)


def test_names_in_torchvisions_files_of_vision_transformers(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"patch_size": 8, "num_layers": 1, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 16}
    sizes |= {"image_size": 32, "num_classes": 10}
    arch = "torchvision.models.vision_transformer:VisionTransformer"
    source, right = (models.VisionTransformer(**sizes) for _ in range(2))
    names = {"mlp.0.": "mlp.linear_1.", "mlp.3.": "mlp.linear_2."}
    old = {re.sub(r"mlp\.\d\.", lambda at: names[at[0]], name): value for name, value in source.state_dict().items()}
    assert "encoder.layers.encoder_layer_0.mlp.linear_1.weight" in old
    right.load_state_dict(old)
    save_file(old, tmp_path / "t.safetensors")
    target = build_network(arch, COLOUR, 10, {name: value for name, value in sizes.items() if name != "num_classes"})
    load_into(target, read_weights(tmp_path / "t.safetensors", KEY), KEY, "t")
    assert _equal(target, right)


@pytest.mark.parametrize("name", ["t.pth", "t.safetensors", "ours.safetensors"])
def test_a_network_that_asks_for_versions(tmp_path: Path, name: str) -> None:
    """torchvision's MNASNet refuses weights without one, as safetensors keep them, and ours are."""
    source = models.mnasnet0_5(num_classes=10)
    if name == "t.pth":
        torch.save(source.state_dict(), tmp_path / name)
    elif name == "t.safetensors":
        save_file(source.state_dict(), tmp_path / name)
    else:
        save_weights(tmp_path / name, source, {"arch": "torchvision:mnasnet0_5"})
    config = load_config(None, ["teacher.arch=torchvision:mnasnet0_5"])
    assert _equal(read_network(config, "teacher", COLOUR, 10, tmp_path / name, KEY), source)


SMALL = {"torchvision:googlenet": ImageShape(3, 32, 32), "torchvision:inception_v3": ImageShape(3, 75, 75)}


def _library_network(arch: str, **options: bool) -> nn.Module:
    torch.manual_seed(0)
    with warnings.catch_warnings(action="ignore"):
        return models.get_model(arch.partition(":")[2], num_classes=5, init_weights=False, **options).eval()


def _config(arch: str, *overrides: str) -> Config:
    return load_config(None, [f"teacher.arch={arch}", "teacher.options.init_weights=false", *overrides])


@pytest.mark.parametrize("arch", SMALL)
@pytest.mark.parametrize("heads", [True, False])
def test_weights_that_torchvision_made_transform_their_input(
    tmp_path: Path, arch: str, heads: bool, caplog: pytest.LogCaptureFixture
) -> None:
    shape, path = SMALL[arch], tmp_path / "t.pt"
    right = _library_network(arch, transform_input=True, aux_logits=heads)
    torch.save(right.state_dict(), path)
    images = torch.randn(2, *shape)
    network = read_network(_config(arch), "teacher", shape, 5, path, KEY).eval()
    with torch.no_grad():
        assert torch.equal(network(images), right(images))
        assert network.training is False
    assert network.state_dict().keys() == right.state_dict().keys()
    said = "takes teacher.options.transform_input=true" + (" " if heads else " teacher.options.aux_logits=false")
    assert said.strip() in caplog.text

    caplog.clear()
    plain = read_network(_config(arch, "teacher.options.transform_input=false"), "teacher", shape, 5, path, KEY).eval()
    right.transform_input = False  # type: ignore[assignment]
    with torch.no_grad():
        assert torch.equal(plain(images), right(images))
        assert not torch.equal(plain(images), network(images))
    assert "transform_input" not in caplog.text


def test_heads_that_the_options_leave_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    right = _library_network("torchvision:googlenet", transform_input=True)
    torch.save(right.state_dict(), tmp_path / "t.pt")
    config = _config("torchvision:googlenet", "teacher.options.aux_logits=false")
    network = read_network(config, "teacher", COLOUR, 5, tmp_path / "t.pt", KEY).eval()
    images = torch.randn(2, *COLOUR)
    with torch.no_grad():
        assert torch.equal(network(images), right(images))
    assert "ignores 20 names that the network lacks: aux1.conv.conv.weight" in caplog.text


def test_our_own_files_tell_their_options(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = {"init_weights": False}
    own = build_network("torchvision:googlenet", COLOUR, 5, options).eval()
    save_weights(tmp_path / "t.safetensors", own, {"arch": "torchvision:googlenet", "options": options})
    network = read_network(_config("torchvision:googlenet"), "teacher", COLOUR, 5, tmp_path / "t.safetensors", KEY)
    images = torch.randn(2, *COLOUR)
    with torch.no_grad():
        assert torch.equal(network.eval()(images), own(images))
    assert not caplog.text


def test_gray_images_are_not_transformed(tmp_path: Path) -> None:
    gray = ImageShape(1, 32, 32)
    own = build_network("torchvision:googlenet", gray, 5, {"init_weights": False}).eval()
    torch.save(own.state_dict(), tmp_path / "t.pt")
    network = read_network(_config("torchvision:googlenet"), "teacher", gray, 5, tmp_path / "t.pt", KEY).eval()
    with torch.no_grad():
        assert torch.equal(network(torch.ones(2, *gray)), own(torch.ones(2, *gray)))


def test_options_of_a_student_that_is_trained_on_are_asked_for(tmp_path: Path) -> None:
    torch.save(_library_network("torchvision:googlenet").state_dict(), tmp_path / "t.pt")
    config = load_config(None, ["student.arch=torchvision:googlenet"])
    with pytest.raises(ConfigError, match=r"^finetune.student=.* with student.options.transform_input=true; say so$"):
        read_network(config, "student", COLOUR, 5, tmp_path / "t.pt", "finetune.student")


class _Pretrained(nn.Module):
    """As transformers' networks: other names in files than in memory, which only `from_pretrained` translates."""

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.config = config
        self.vit = nn.ModuleDict({"layers": nn.ModuleList([nn.ModuleDict({"q_proj": nn.Linear(3, 3)})])})
        self.classifier = nn.Linear(3, config.num_labels)

    def forward(self, x: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.classifier(self.vit["layers"][0]["q_proj"](x.mean((2, 3)))))  # type: ignore[index]

    def saved(self) -> dict[str, Tensor]:
        names = {"layers.0": "encoder.layer.0", "q_proj": "attention.attention.query"}
        saved = dict(self.state_dict())
        for new, old in names.items():
            saved = {name.replace(new, old): value for name, value in saved.items()}
        return saved

    @classmethod
    def from_pretrained(
        cls, path: None, *, config: SimpleNamespace, state_dict: dict[str, Tensor], output_loading_info: bool
    ) -> tuple[nn.Module, dict[str, set[str]]]:
        network = cls(config)
        own = dict(zip(network.saved(), network.state_dict(), strict=True))
        names = {name: own.get(name, name) for name in state_dict}
        missing, unexpected = network.load_state_dict({names[n]: v for n, v in state_dict.items()}, strict=False)
        about = {"missing_keys": set(missing), "unexpected_keys": set(unexpected), "mismatched_keys": set()}
        return network, about if output_loading_info else {}


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_names_that_only_from_pretrained_translates(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = _Pretrained(SimpleNamespace(num_labels=10))
    with torch.device(device):
        target = _Pretrained(SimpleNamespace(num_labels=10))
    weights = source.saved()
    with pytest.raises(ConfigError, match=r"missing: vit.layers.0.q_proj.weight"):
        load_into(target, weights, KEY, "t")
    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(PreTrainedModel=_Pretrained))  # type: ignore[arg-type]
    for prefix in ("", "module.", "net."):
        load_into(target, {prefix + name: value for name, value in weights.items()}, KEY, "t")
        assert device == "meta" or all(map(torch.equal, target.parameters(), source.parameters()))
    with pytest.raises(ConfigError, match=r"unexpected: vit.encoder.layer.1.attention.attention.query.bias$"):
        load_into(target, weights | {"vit.encoder.layer.1.attention.attention.query.bias": torch.zeros(3)}, KEY, "t")
    del weights["classifier.weight"]
    with pytest.raises(ConfigError, match=r"missing: .*classifier\.weight"):
        load_into(target, weights, KEY, "t")


def test_hugging_face(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    about = transformers.ViTConfig(image_size=32, patch_size=8, num_labels=10, **sizes)
    source = transformers.ViTForImageClassification(about).eval()
    source.save_pretrained(tmp_path)
    target = transformers.ViTForImageClassification(about).eval()
    load_into(target, read_weights(tmp_path / "model.safetensors", KEY), KEY, "t")
    images = torch.randn(2, *COLOUR)
    assert torch.equal(target(images).logits, source(images).logits)
