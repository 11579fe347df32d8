"""`export` through its command line, on students that have been trained for a few iterations."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from markdown_it import MarkdownIt

from tests.support.configs import tiny_config, tiny_overrides
from tests.support.stores import new_store
from zskt_dist.commands import train
from zskt_dist.export import __main__ as export
from zskt_dist.export.load import load_network
from zskt_dist.files import sha256_of
from zskt_dist.models import WideResNet
from zskt_dist.networks.building import load_trained

MEAN, STD = 0.3054, 0.3760
"""Of digits, in the pixels' range [0, 1]."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WRN-10-1 (batch norm, odd sizes) that a LeNet has taught for a few iterations."""
    folder = tmp_path_factory.mktemp("export")
    overrides = ["student.arch=wrn-10-1", "loss.beta=0", "name=a", "iterations=6", "evaluation.held_out_images=16"]
    overrides += ["launch.cpus_per_worker=1"]
    assert train.main(tiny_overrides(folder, *overrides)) == 0
    return folder / "runs/digits/a"


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    assert export.main([str(run), "--to", "safetensors", "pt2", "onnx", "int8", "card"]) == 0
    return run / "export"


def _eager(run: Path) -> torch.nn.Module:
    """The student as the run has saved it, without anything of the export."""
    network, _ = load_trained(tiny_config(run, "student.arch=wrn-10-1"), "student", run / "student.safetensors")
    assert isinstance(network, WideResNet)
    return network


def _record(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "export.json").read_text()))


@pytest.mark.parametrize("size", [1, 5])
def test_programs_answer_as_pytorch_does_for_any_batch_size(run: Path, exported: Path, size: int) -> None:
    images = torch.randn(size, 1, 8, 8)
    expected = _eager(run)(images)
    program = torch.export.load(exported / "student.pt2").module()
    assert (program(images) - expected).abs().max() < 1e-4
    session = onnxruntime.InferenceSession(exported / "student.onnx")
    (logits,) = session.run(None, {"images": images.numpy()})
    assert logits.shape == (size, 10)
    assert np.abs(logits - expected.numpy()).max() < 1e-4


def test_onnx_says_what_it_is(run: Path, exported: Path) -> None:
    model = onnx.load(exported / "student.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert (shape[0].dim_param, [size.dim_value for size in shape[1:]]) == ("batch", [1, 8, 8])
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert (told["arch"], told["mean"], told["std"]) == ("wrn-10-1", "0.3054", "0.376")
    assert told["weights_sha256"] == sha256_of(run / "student.safetensors")
    assert told["class_names"].split() == list("0123456789")


def test_weights_and_their_config_are_the_student_again(run: Path, exported: Path) -> None:
    network, config = load_network(exported)
    images = torch.randn(3, 1, 8, 8)
    assert torch.equal(network(images), _eager(run)(images))
    assert config["network"]["arch"] == "wrn-10-1"
    assert (config["image_shape"], config["num_classes"]) == ([1, 8, 8], 10)
    assert (config["mean"], config["std"]) == ([MEAN], [STD])
    assert sha256_of(exported / "student.safetensors") == sha256_of(run / "student.safetensors")


def test_export_json_holds_sizes_differences_and_latencies(exported: Path) -> None:
    record = _record(exported)
    assert list(record["files"]) == ["safetensors", "pt2", "onnx", "int8"]
    for name, entry in record["files"].items():
        path = exported / entry["file"]
        assert (entry["bytes"], entry["sha256"]) == (path.stat().st_size, sha256_of(path))
        if name != "safetensors":
            assert set(entry["latency_ms"]) == {"1", "32"}
            assert min(entry["latency_ms"].values()) > 0
        if name != "int8":
            assert max(entry["difference"], entry["difference_large"]) < 1e-4
    assert record["files"]["safetensors"]["difference"] == 0
    int8 = record["files"]["int8"]
    assert int8["bytes"] < 0.5 * record["files"]["onnx"]["bytes"]
    assert int8["difference"] > 1e-4  # eight bits are not enough to hide it
    assert set(int8["agreement"]) == {"noise", "pseudo_images"}
    assert all(0.5 < share <= 1 for share in int8["agreement"].values())
    networks = record["networks"]
    assert [(role, entry["arch"]) for role, entry in networks.items()] == [
        ("teacher", "lenet"),
        ("student", "wrn-10-1"),
    ]
    eager = WideResNet(10, 1, in_channels=1, num_classes=10)
    assert networks["student"]["parameters"] == sum(p.numel() for p in eager.parameters())
    assert record["threads"] == torch.get_num_threads()


def test_the_card_renders_and_its_examples_run(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, front, text = (exported / "README.md").read_text().split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert metadata["pipeline_tag"] == "image-classification"
    assert "zero-shot-knowledge-transfer" in metadata["tags"]
    accuracy = metadata["model-index"][0]["results"][0]["metrics"][0]["value"]
    result = json.loads((exported.parent / "result.json").read_text())
    assert accuracy == round(result["student"]["accuracy_last"], 4)
    html = MarkdownIt("commonmark").enable("table").render(text)
    titles = re.findall(r"<h2>(.*?)</h2>", html)
    assert titles == [
        "How it was trained",
        "Data used",
        "Measured quality",
        "Estimated quality",
        "Limits",
        "How to load it",
        "Sizes and latency",
        "Citation",
    ]
    assert html.count("<table>") == 6
    assert "|" not in re.sub(r"<(code|pre).*?</\1>", "", html, flags=re.DOTALL)  # every table was seen as one
    assert "{{" not in text
    assert "None. The student learnt from images that a generator makes of noise" in text
    assert "Estimates, not measurements." in text
    held_out = result["estimates"]["sources"]["held_out"]
    share, low, high = (f"{100 * held_out[name]:.2f} %" for name in ("agreement", "agreement_low", "agreement_high"))
    assert f"{share} ({low} to {high})" in text
    assert f"{100 * result['estimates']['label_free_score']:.2f} %" in text
    assert f"{100 * result['student']['agreement']:.2f} %" in text
    monkeypatch.chdir(exported)
    images = torch.randn(4, 1, 8, 8)
    codes = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert [len(code.splitlines()) for code in codes] == [3, 3, 3, 3]
    for code in codes:
        names: dict[str, Any] = {"images": images}
        exec(code, names)
        assert names["logits"].shape == (4, 10)


def test_programs_that_normalise_take_pixels(run: Path, tmp_path: Path) -> None:
    options = ["--to", "pt2", "onnx", "--with-normalisation", "--out", str(tmp_path)]
    assert export.main([str(run), *options]) == 0
    pixels = torch.rand(2, 1, 8, 8)
    expected = _eager(run)((pixels - MEAN) / STD)
    torch.testing.assert_close(
        torch.export.load(tmp_path / "student.pt2").module()(pixels), expected, rtol=0, atol=1e-4
    )
    session = onnxruntime.InferenceSession(tmp_path / "student.onnx")
    np.testing.assert_allclose(session.run(None, {"images": pixels.numpy()})[0], expected, atol=1e-4)
    assert _record(tmp_path)["files"]["onnx"]["input"] == "pixels in [0, 1]"


def test_a_file_that_differs_is_not_there(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export.main([str(run), "--to", "pt2", "onnx", "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    assert export.main([str(run), "--to", "onnx", "--out", str(tmp_path), "--tolerance", "0"]) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(r"error: student.onnx is not written: its logits differ from PyTorch's by \S+e-0\d.*\n", error)
    assert "--tolerance is 0" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export.json", "student.pt2"]
    assert list(_record(tmp_path)["files"]) == ["pt2"]  # of the earlier command, and as it was


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{folder}"], "error: {folder}: no finished run; export takes a folder with a result.json"),
        (["{run}", "--tolerance", "-1"], "error: --tolerance -1: expected 0 or more"),
        (["{run}", "--to", "mlflow", "--uri", "none"], "error: --uri none: name a store"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments: list[str], said: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"folder": str(tmp_path / "nothing"), "run": str(run)}
    given = [argument.format(**places) for argument in arguments]
    assert export.main([*given, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(said.format(**places))
    assert error.count("\n") == 1


def test_a_missing_package_is_named_before_anything_is_made(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zskt_dist.extras.find_spec", lambda name: None if name == "onnxruntime" else name)
    assert export.main([str(run), "--to", "pt2", "int8", "--out", str(tmp_path / "out")]) == 2
    expected = "error: --to int8 needs ONNX Runtime: pip install 'zskt-dist[export]'\n"
    assert capsys.readouterr().err == expected
    assert not (tmp_path / "out").exists()


def test_the_teacher_of_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export.main([str(run), "--to", "safetensors", "card", "--role", "teacher"]) == 0
    folder = run / "export-teacher"
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "export.json",
        "teacher.safetensors",
    ]
    assert list(_record(folder)["networks"]) == ["teacher"]
    card = (folder / "README.md").read_text()
    assert "Not known to this run." in card
    assert "| on test images | teacher |\n" in card  # and no empty column of a teacher's teacher
    assert "tags:" not in card.split("---\n")[1]


def test_a_run_whose_teacher_is_gone(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun = run / "command.json"
    before = begun.read_text()
    begun.write_text(json.dumps(json.loads(before) | {"teacher": str(tmp_path / "gone.safetensors")}))
    try:
        assert export.main([str(run), "--to", "safetensors", "--out", str(tmp_path / "out")]) == 0
        assert list(_record(tmp_path / "out")["networks"]) == ["student"]
        assert export.main([str(run), "--role", "teacher", "--out", str(tmp_path / "out")]) == 2
        assert "is not there any more" in capsys.readouterr().err
    finally:
        begun.write_text(before)


@pytest.mark.slow
def test_the_registered_model_serves(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    from mlflow import MlflowClient

    store = new_store(tmp_path)
    arguments = [str(run), "--to", "mlflow", "--uri", store, "--out", str(tmp_path / "out"), "--model-name", "small"]
    for _ in range(2):  # the same weights are one version
        assert export.main(arguments) == 0
        assert f"registered  models:/small/1 at {store}" in capsys.readouterr().out
    (version,) = MlflowClient(tracking_uri=store).search_model_versions("name='small'")
    assert version.tags["weights_sha256"] == sha256_of(run / "student.safetensors")
    mlflow.set_tracking_uri(store)
    images = np.random.default_rng(0).standard_normal((5, 1, 8, 8), dtype=np.float32)
    expected = _eager(run)(torch.from_numpy(images)).numpy()
    network = mlflow.pytorch.load_model("models:/small/1")
    np.testing.assert_allclose(network(torch.from_numpy(images)).detach().numpy(), expected, atol=1e-4)
    served = mlflow.pyfunc.load_model("models:/small/1")
    np.testing.assert_allclose(served.predict(images), expected, atol=1e-4)
    assert served.metadata.signature.inputs.inputs[0].shape == (-1, 1, 8, 8)
    assert served.metadata.signature.outputs.inputs[0].shape == (-1, 10)
    assert served.input_example.shape == (2, 1, 8, 8)

    assert export.main([*arguments, "--with-normalisation"]) == 0
    assert "models:/small/2" in capsys.readouterr().out
    pixels = images * STD + MEAN
    served = mlflow.pyfunc.load_model("models:/small/2")
    np.testing.assert_allclose(served.predict(pixels.astype(np.float32)), expected, atol=1e-3)
