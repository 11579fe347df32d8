"""What a card says of runs of every kind."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from tests.export.runs import untrained_network, untrained_run
from tests.support.pseudo import write_pseudo_data
from zskt_dist.export import __main__ as export
from zskt_dist.export import card, quality
from zskt_dist.export.exported_network import ExportedNetwork

IMAGE = "An image classifier for 10 classes (`lenet`)"


def _keys(exported: ExportedNetwork) -> set[str]:
    return {key.strip("`") for key, _ in card.settings(exported)}


def _without_images(folder: Path, *overrides: str, **result: Any) -> ExportedNetwork:
    """`data.name=none`: nothing was measured on the way."""
    student = {"arch": "lenet", "params": 30, "accuracy_last": None, "agreement": None, "sha256": "0"}
    teacher = {"arch": "lenet-2", "params": 120, "accuracy": None}
    told = {"dataset": "none", "teacher": teacher, "student": student} | result
    return untrained_network(folder, "data.name=none", *overrides, **told)


def _evaluated(exported: ExportedNetwork, number: int, student: str, accuracy: float, **data: str) -> None:
    """As `evaluate RUN data.name=…` leaves it."""
    answer = {
        "accuracy": accuracy,
        "teacher_accuracy": 0.97,
        "agreement": 0.825,
        "calibration": {"student": {"ece": 0.125}, "teacher": {"ece": 0.0625}},
        "mte": {"value": 0.5, "steps": 100, "step_size": 1.0, "images": 50},
        "settings": {"data": data, "weights": {"student": student, "teacher": "b"}},
    }
    folder = exported.directory.evaluation / f"other-{number}"
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text(json.dumps(answer))


def test_a_run_without_images_tells_what_evaluate_has_measured(tmp_path: Path) -> None:
    exported = _without_images(tmp_path)
    assert quality.measured_table(exported)[1] == []
    _evaluated(exported, 1, exported.sha256, 0.8125, name="parquet", root="/somewhere/flowers")
    _evaluated(exported, 2, "of another student", 0.99, name="digits", root="data")
    assert quality.measured_table(exported) == (
        ("on test images", "student", "teacher"),
        [
            ("flowers: accuracy", "81.25 %", "97.00 %"),
            ("flowers: agreement, same class as the teacher", "82.50 %", ""),
            ("flowers: expected calibration error (ECE)", "0.1250", "0.0625"),
            ("flowers: mean transition error (MTE; K = 100, step 1, 50 images)", "0.5000", ""),
        ],
    )
    assert quality.accuracies(exported) == {"flowers": 0.8125}
    without = f"{IMAGE}, a student of `lenet-2`, with 25.00 % of its parameters, without any of its training images."
    assert card.summary(exported) == without
    assert card.tags(exported) == ["knowledge-distillation", "data-free", "zero-shot-knowledge-transfer"]


def test_a_student_of_inversion_says_how_it_was_made_and_from_what(tmp_path: Path) -> None:
    exported = _without_images(tmp_path / "a", "inversion.rounds=7", kind="inversion")
    assert "inversion of the teacher" in card.training(exported)
    assert {"inversion.rounds", "iterations", "optimizer.student_lr"} <= _keys(exported)
    assert not any(key.startswith(("transfer.", "loss.")) for key in _keys(exported))
    assert card.tags(exported) == ["knowledge-distillation", "data-free"]
    assert card.data_used(exported).startswith("None. The student learnt from images that a generator makes")

    seed = {"images": 1200, "sha256": "ab12"}
    given = _without_images(tmp_path / "b", "inversion.seed_images=mine", kind="inversion", seed_images=seed)
    assert card.tags(given) == ["knowledge-distillation"]
    assert card.summary(given) == f"{IMAGE}, a student of `lenet-2`, with 25.00 % of its parameters."
    assert card.data_used(given).startswith(
        "1,200 images without labels that were given (SHA-256 of their pixels `ab12`)"
    )
    assert "not data-free" in card.data_used(given)


def test_a_run_with_images_tells_of_its_own(tmp_path: Path) -> None:
    exported = untrained_network(tmp_path)
    _evaluated(exported, 1, exported.sha256, 0.5, name="svhn", root="data")
    assert quality.accuracies(exported) == {"digits": 0.8}
    assert quality.measured_table(exported)[1][0] == ("digits: accuracy", "80.00 %", "95.00 %")


def test_estimates_are_told_for_each_source(tmp_path: Path) -> None:
    names = ("images", "agreement", "agreement_low", "agreement_high", "chance_agreement", "kl_5", "kl_50", "kl_95")
    sources = {
        "held_out": dict(zip(names, (1280, 0.75, 0.72, 0.78, 0.125, 0.01, 0.25, 3.0), strict=True)),
        "noise": dict(zip(names, (256, 0.5, 0.44, 0.56, 0.25, 0.02, 0.5, 4.0), strict=True)),
    }
    assert quality.estimates_table({"label_free_score": 0.7, "sources": sources})[1] == [
        (
            "pseudo-images of the generator at several moments of the run",
            "1,280",
            "75.00 % (72.00 % to 78.00 %)",
            "12.50 %",
            "0.2500",
        ),
        ("standard normal noise", "256", "50.00 % (44.00 % to 56.00 %)", "25.00 %", "0.5000"),
    ]


def test_a_student_of_pseudo_data(tmp_path: Path) -> None:
    """It learnt from files: of a teacher that they name, and of no generator."""
    folder = tmp_path / "pseudo"
    write_pseudo_data(folder, teacher={"arch": "lenet-3", "sha256": "c0ffee"})
    exported = _without_images(tmp_path, f"pseudo_data={folder}", "loss.beta=0", teacher=None)
    assert card.method(exported) == "pseudo_data"
    assert card.summary(exported) == f"{IMAGE}, a student of `lenet-3`, without any of its training images."
    assert card.teacher_of(exported) == {"arch": "lenet-3", "sha256": "c0ffee"}
    assert "fixed set of pseudo-images" in card.training(exported)
    assert "20 pseudo-images that had been made before" in card.data_used(exported)
    assert _keys(exported) == {
        *("iterations", "batch_size", "seed", "loss.divergence", "loss.temperature", "loss.reduction"),
        *("optimizer.student_lr", "optimizer.clip_norm"),
    }
    assert card.tags(exported) == ["knowledge-distillation", "data-free"]
    shutil.rmtree(folder)
    assert card.teacher_of(exported) is None
    assert card.summary(exported) == f"{IMAGE}, a student of a teacher that is not known to this run."
    assert card.tags(exported) == ["knowledge-distillation"], "nobody knows any more"
    assert "which had been made before." in card.training(exported)
    assert "it is not known whether they were made without data" in card.data_used(exported)


def test_a_student_of_pseudo_data_of_an_inversion(tmp_path: Path) -> None:
    """Shards of earlier versions do not say how they were made, and were made by Algorithm 1."""
    seed = {"images": 1200, "sha256": "ab12"}
    write_pseudo_data(tmp_path / "old")
    write_pseudo_data(tmp_path / "made", method="inversion", seed_images=None)
    write_pseudo_data(tmp_path / "given", method="inversion", seed_images=seed)
    old, made, given = (
        _without_images(tmp_path / f"of-{name}", f"pseudo_data={tmp_path / name}", "loss.beta=0", teacher=None)
        for name in ("old", "made", "given")
    )
    assert "the generator of another student had drawn before (Micaelli" in card.training(old)
    assert "an inversion of the teacher had made for another student before (after Yin" in card.training(made)
    assert card.tags(made) == ["knowledge-distillation", "data-free"]
    assert card.data_used(made).startswith("None. The student learnt from 20 pseudo-images")
    assert card.tags(given) == ["knowledge-distillation"]
    assert "without" not in card.summary(given)
    assert card.data_used(given) == (
        "20 pseudo-images that had been made before. The run that made them also learnt from 1,200 images without "
        "labels that were given (SHA-256 of their pixels `ab12`): the student is not data-free. "
        "The teacher had its own training data."
    )


@pytest.mark.parametrize(
    ("kind", "overrides", "cited"),
    [
        ("inversion", (), True),
        ("train", ("pseudo_data=made", "loss.beta=0"), True),
        ("finetune", ("method=inversion",), True),
        ("train", (), False),
        ("distill", ("method=inversion",), False),
    ],
)
def test_a_card_cites_what_its_images_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, overrides: tuple[str, ...], cited: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pseudo_data(Path("made"), method="inversion", seed_images=None)
    run = untrained_run(tmp_path, *overrides, kind=kind)
    assert export.main([str(run), "--to", "safetensors", "card"]) == 0
    text = (run / "export/README.md").read_text()
    assert ("Dreaming to Distill" in text) == cited
    assert text.count("@inproceedings") == 1 + cited


def test_pseudo_data_of_other_images_is_not_what_was_learnt_from(tmp_path: Path) -> None:
    write_pseudo_data(tmp_path / "pseudo", num_classes=7)
    exported = _without_images(tmp_path, f"pseudo_data={tmp_path / 'pseudo'}", "loss.beta=0", teacher=None)
    assert card.teacher_of(exported) is None


@pytest.mark.parametrize(
    ("kind", "size", "method", "told", "tags"),
    [
        ("distill", 150, "attention transfer", "150.00 %", ["knowledge-distillation"]),
        ("finetune", 25, "trained on with a few labelled images", "25.00 %", ["knowledge-distillation"]),
    ],
)
def test_a_student_of_images(tmp_path: Path, kind: str, size: int, method: str, told: str, tags: list[str]) -> None:
    student = {"arch": "lenet", "params": size, "accuracy_last": 0.8, "agreement": 0.8, "sha256": "0"}
    teacher = {"arch": "lenet-2", "params": 100, "accuracy": 0.95}
    exported = untrained_network(tmp_path, kind=kind, student=student, teacher=teacher, images_per_class=10)
    assert card.summary(exported) == f"{IMAGE}, a student of `lenet-2`, with {told} of its parameters."
    assert method in card.training(exported)
    assert card.data_used(exported) == "10 labelled training images per class of digits."
    assert card.tags(exported) == tags


def test_settings_are_those_that_were_read(tmp_path: Path) -> None:
    distilled = untrained_network(tmp_path / "a", "supervised.iterations=null", kind="distill")
    settings = dict(card.settings(distilled))
    assert settings["`supervised.iterations`"] == "`80000`"  # those of the run, where nothing else is said
    assert not {"iterations", "supervised.network"} & _keys(distilled)
    finetuned = _keys(untrained_network(tmp_path / "b", kind="finetune"))
    assert {"finetune.iterations", "iterations", "transfer.student_steps", "loss.attention"} <= finetuned
    plain = _keys(untrained_network(tmp_path / "c", "loss.beta=0"))
    assert "transfer.student_steps" in plain
    assert not {"loss.attention", "loss.resize_maps", "finetune.iterations"} & plain


def test_a_finetuned_student_of_pseudo_data(tmp_path: Path) -> None:
    exported = untrained_network(tmp_path, "pseudo_data=gone", "loss.beta=0", kind="finetune")
    assert "fixed set of pseudo-images" in card.training(exported)
    assert not any(key.startswith(("transfer", "generator")) for key in _keys(exported))


def test_a_student_without_a_teacher(tmp_path: Path) -> None:
    exported = untrained_network(tmp_path, kind="scratch")
    assert card.summary(exported) == f"{IMAGE}, trained from scratch."
    assert card.tags(exported) == []
    assert quality.measured_table(exported)[0] == ("on test images", "student")


@pytest.mark.parametrize(
    ("arch", "call"),
    [
        ("wrn-10-1", 'load_network(".")'),
        ("timm:resnet18", 'load_network(".")'),
        ("mine:Student", 'load_network(".", arch="mine:Student")'),
    ],
)
def test_examples_name_the_code_that_is_run(arch: str, call: str) -> None:
    entry = {"file": "student.safetensors", "input": "normalised images"}
    ((_, code),) = card.examples({"arch": arch, "files": {"safetensors": entry}})
    assert f"network, config = {call}  #" in code


HOSTILE = [
    "<script>alert(1)</script>",
    "two\nlines\n# Heading",
    "![x](http://evil/x.png)",
    "a | b",
    "`code`",
    "# first",
]


def test_names_of_classes_and_data_sets_are_shown_and_do_nothing(tmp_path: Path) -> None:
    names = [*HOSTILE, "g", "h", "i", "j"]
    exported = _without_images(tmp_path, f"data.class_names={json.dumps(names)}")
    _evaluated(exported, 1, exported.sha256, 0.8125, name="parquet", root="/somewhere/<img src=x onerror=alert(1)>")
    path = exported.directory.result
    result = json.loads(path.read_text())
    result["teacher"]["arch"] = "lenet` <b>![x](y)"
    path.write_text(json.dumps(result | {"experiment": "<i>me</i>"}))
    assert export.main([str(exported.directory.path), "--to", "card", "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out/README.md").read_text().split("---", 2)[2]
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    kinds = {child.type for token in tokens for child in token.children or []} | {token.type for token in tokens}
    assert not kinds & {"html_block", "html_inline", "image", "link_open"}
    headings = [tokens[place + 1].content for place, token in enumerate(tokens) if token.type == "heading_open"]
    assert all(heading[0].isupper() or heading == headings[0] for heading in headings)
    assert "Heading" not in headings
    (row,) = (line for line in text.splitlines() if line.startswith("| classes"))
    (cells,) = [token.children for token in tokens if token.type == "inline" and "lines # Heading" in token.content]
    shown = "".join(child.content for child in cells or [])
    assert shown == ", ".join(" ".join(name.split()) for name in names)
    assert row.endswith("g, h, i, j |")
