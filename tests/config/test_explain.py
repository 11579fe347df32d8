"""What people get wrong, and the one line they get back: dotted key, value, and what would work."""

import itertools
import pickle
import re
from pathlib import Path

import pytest

from zskt_dist.config import Config, load_config
from zskt_dist.config.schema import flatten
from zskt_dist.errors import ConfigError, UserError

# overrides, dotted key, its value as Python shows it, words of the hint
BAD_VALUES = {
    "misspelt key": (["loss.betta=3"], "loss.betta", "3", ["no such key", "did you mean 'loss.beta'?"]),
    "misspelt section": (
        ["optimzer.student_lr=1"],
        "optimzer.student_lr",
        "1:",
        ["no section 'optimzer'; did you mean 'optimizer'?"],
    ),
    "misspelt section in a section": (
        ["loss.tap.teacher=[a]"],
        "loss.tap.teacher",
        "['a']:",
        ["no section 'tap'; did you mean 'loss.taps'?"],
    ),
    "unknown section of a known key": (
        ["adam.student_lr=1"],
        "adam.student_lr",
        "1:",
        ["no section 'adam'; did you mean optimizer.student_lr?"],
    ),
    "unknown section": (["frob.nicate=1"], "frob.nicate", "1:", ["no section 'frob'; the top level has experiment"]),
    "misspelt top-level key": (["iteration=3"], "iteration", "3", ["did you mean 'iterations'?"]),
    "key in the wrong section": (
        ["optimizer.beta=3"],
        "optimizer.beta",
        "3",
        ["did you mean loss.beta or distill.beta?"],
    ),
    "key without its section": (["student_steps=5"], "student_steps", "5", ["did you mean transfer.student_steps?"]),
    "top-level key in a section": (["loss.seed=4"], "loss.seed", "4", ["did you mean seed or teacher.seed?"]),
    "key of two other sections": (["loss.kind=ray"], "loss.kind", "'ray'", ["launch.kind or engine.kind"]),
    "unknown key": (["loss.frobnicate=1"], "loss.frobnicate", "1", ["loss has divergence", "beta", "temperature"]),
    "unknown top-level key": (["frobnicate=1"], "frobnicate", "1", ["the top level has experiment", "loss"]),
    "text for a number": (["loss.beta=much"], "loss.beta", "'much'", ["expected a valid number"]),
    "fraction for a count": (["iterations=1.5"], "iterations", "1.5", ["expected a valid integer"]),
    "truth for a count": (["iterations=true"], "iterations", "True", ["expected a valid integer"]),
    "number for text": (["data.root=12"], "data.root", "12", ["expected a valid string"]),
    "number for truth": (["data.download=1"], "data.download", "1", ["expected a valid boolean"]),
    "number for a list of two": (
        ["generator.channels=3"],
        "generator.channels",
        "[3]",
        ["expected a list of 2, for example generator.channels=128,64"],
    ),
    "words for a list of numbers": (
        ["generator.channels=a,b"],
        "generator.channels",
        "'a,b'",
        ["expected a list, for example generator.channels=128,64"],
    ),
    "a fraction among counts": (
        ["data.image_shape=1,28,2.5"],
        "data.image_shape.2",
        "2.5",
        ["expected a valid integer"],
    ),
    "list too short": (["generator.channels=[1]"], "generator.channels", "[1]", ["expected a list of 2, for example"]),
    "list too long": (["generator.channels=[1,2,3]"], "generator.channels", "[1, 2, 3]", ["expected a list of 2, for"]),
    "a shape without channels": (
        ["data.image_shape=[28,28]"],
        "data.image_shape",
        "[28, 28]",
        ["expected a list of 3, for example data.image_shape=3,32,32"],
    ),
    "two numbers without brackets": (
        ["data.image_shape=28,28"],
        "data.image_shape",
        "[28, 28]",
        ["expected a list of 3"],
    ),
    "nothing where text is needed": (["runs_dir="], "runs_dir", "''", ["no value is given; expected a valid string"]),
    "nothing where a number is needed": (
        ["loss.beta="],
        "loss.beta",
        "''",
        ["no value is given; expected a valid number"],
    ),
    "nothing where a choice is needed": (["loss.divergence="], "loss.divergence", "''", ["expected one of forward_kl"]),
    "an octal number": (["iterations=010"], "iterations", "'010'", ["expected a valid integer"]),
    "a URI for a folder": (
        ["data.root=s3://bucket/images"],
        "data.root",
        "'s3://bucket/images'",
        ["is a URI; expected a folder or file of this machine"],
    ),
    "a URI for pseudo-data": (
        ["pseudo_data=s3://b/x", "loss.beta=0"],
        "pseudo_data",
        "'s3://b/x'",
        ["of this machine"],
    ),
    "zero": (["iterations=0"], "iterations", "0", ["greater than 0"]),
    "negative": (["loss.beta=-1"], "loss.beta", "-1", ["greater than or equal to 0"]),
    "not a number": (["loss.beta=.nan"], "loss.beta", "nan", ["finite"]),
    "infinite": (["supervised.decay=.inf"], "supervised.decay", "inf", ["finite"]),
    "out of range inside a list": (
        ["supervised.milestones=[0.5,1.5]"],
        "supervised.milestones.1",
        "1.5",
        ["less than 1"],
    ),
    "attention without a teacher": (["pseudo_data=folder"], "loss.beta", "250.0", ["does not hold", "use loss.beta=0"]),
    "unknown choice": (
        ["data.name=cifar"],
        "data.name",
        "'cifar'",
        ["expected one of digits, cifar10", "did you mean 'cifar10'?"],
    ),
    "choice with a typing error": (
        ["loss.divergence=forwardkl"],
        "loss.divergence",
        "'forwardkl'",
        [
            "forward_kl, reverse_kl, jensen_shannon, or your own as package.module:callable",
            "did you mean 'forward_kl'?",
        ],
    ),
    "a divergence with a dot for the colon": (
        ["loss.divergence=mine.gap"],
        "loss.divergence",
        "'mine.gap'",
        ["or your own as package.module:callable"],
    ),
    "a seed of the teacher that is none": (
        ["teacher.seed=mine"],
        "teacher.seed",
        "'mine'",
        ["expected a valid integer, or run"],
    ),
    "what others call it": (["device=gpu"], "device", "'gpu'", ["did you mean 'cuda'?"]),
    "a stage of another engine": (["engine.zero_stage=2"], "engine.zero_stage", "2", ["needs engine.kind=deepspeed"]),
    "a stage that does not exist": (
        ["engine.kind=deepspeed", "engine.zero_stage=4"],
        "engine.zero_stage",
        "4",
        ["0, 1, 2, 3"],
    ),
    "a sharded teacher without DeepSpeed": (
        ["engine.teacher=sharded"],
        "engine.teacher",
        "'sharded'",
        ["needs engine.kind=deepspeed"],
    ),
    "nothing to offload": (
        ["engine.kind=deepspeed", "engine.zero_stage=0", "engine.offload_optimizer=true"],
        "engine.offload_optimizer",
        "True",
        ["engine.zero_stage=1, 2 or 3"],
    ),
    "parameters that are not shared out": (
        ["engine.kind=deepspeed", "engine.zero_stage=2", "engine.offload_parameters=true"],
        "engine.offload_parameters",
        "True",
        ["engine.zero_stage=3"],
    ),
    "a graph of DeepSpeed": (
        ["engine.kind=deepspeed", "speed.cuda_graphs=true"],
        "speed.cuda_graphs",
        "True",
        ["use auto, or engine.kind=ddp"],
    ),
    "micro-batches that some workers have more of": (
        [
            *("engine.kind=deepspeed", "engine.zero_stage=2", "engine.micro_batch=3"),
            *("batch_size=7", "launch.workers=2"),
        ],
        "engine.micro_batch",
        "3",
        ["cuts the 3 and 4 images of 2 workers", "share evenly"],
    ),
    "a layer twice": (["loss.attention_layers=[0,0]"], "loss.attention_layers", "[0, 0]", ["twice"]),
    "layers of one network alone": (
        ["loss.taps.student=[layer1]"],
        "loss.taps.teacher",
        "None",
        ["needs the layers that those of loss.taps.student are compared with"],
    ),
    "unequally many layers": (
        ["loss.taps.teacher=[a,b]", "loss.taps.student=[c]"],
        "loss.taps.student",
        "['c']",
        ["are 1 layers, and loss.taps.teacher are 2"],
    ),
    "layers named twice over": (
        ["loss.taps.teacher=[a]", "loss.taps.student=[c]", "loss.attention_layers=[0]"],
        "loss.attention_layers",
        "[0]",
        ["loss.taps"],
    ),
    "a layer whose name YAML reads as a number": (
        ["loss.taps.teacher=[1.10]", "loss.taps.student=[a]"],
        "loss.taps.teacher.0",
        "1.1",
        ["name of a layer", "quote"],
    ),
    "a number for layers": (["loss.taps.teacher=2"], "loss.taps.teacher", "2", ["a list, for example"]),
    "a misspelt key of a section in a section": (
        ["loss.taps.teach=[a]"],
        "loss.taps.teach",
        "['a']",
        ["'loss.taps.teacher'"],
    ),
    "taps that are neither auto nor none": (["loss.taps=automatic"], "loss.taps", "'automatic'", ["teacher, student"]),
    "name that is a path": (["name=a/b"], "name", "'a/b'", ["letters, digits"]),
    "name that climbs": (["experiment=../up"], "experiment", "'../up'", ["letters, digits"]),
    "hidden name": (["name=.hidden"], "name", "'.hidden'", ["starting with a letter or digit"]),
    "a section given a value": (["student=wrn-10-1"], "student", "'wrn-10-1'", ["is a section", "keys: arch"]),
    "a section given nothing": (["loss="], "loss", "''", ["is a section", "beta"]),
    "a section given a list": (["data=[1]"], "data", "[1]", ["is a section", "root"]),
    "a value used as a section": (["loss=3", "loss.beta=1"], "loss.beta", "1", ["loss is a value, not a section"]),
    "broken YAML value": (["loss.beta=["], "loss.beta", "'['", ["not valid YAML"]),
    "batch smaller than the workers": (["batch_size=1", "launch.workers=2"], "batch_size", "1", ["each of 2"]),
    "supervised batch smaller than the workers": (
        ["supervised.batch_size=2", "launch.workers=[1,3]", "launch.kind=ray"],
        "supervised.batch_size",
        "2",
        ["one image for each of 3 launch.workers"],
    ),
    "no workers": (["launch.workers=0"], "launch.workers", "0", ["number of workers", "[fewest, most]"]),
    "a range from none": (["launch.workers=[0,2]"], "launch.workers", "[0, 2]", ["number of workers"]),
    "a range of three": (["launch.workers=[1,2,3]"], "launch.workers", "[1, 2, 3]", ["[fewest, most]"]),
    "a range turned round": (["launch.workers=[2,1]", "launch.kind=ray"], "launch.workers", "[2, 1]", ["[1, 2]"]),
    "a range without Ray": (["launch.workers=[1,2]"], "launch.workers", "[1, 2]", ["launch.kind=ray"]),
    "synchronised batch norm on CPU": (
        ["device=cpu", "engine.batch_norm=sync"],
        "engine.batch_norm",
        "'sync'",
        ["needs CUDA", "engine.batch_norm=local"],
    ),
    "mean without std": (["data.mean=[0.5]"], "data.std", "None", ["one number per channel", "data.mean=(0.5,)"]),
    "std without mean": (["data.std=[0.5]"], "data.std", "(0.5,)", ["one number per channel", "data.mean=None"]),
    "std of other length": (["data.mean=[0.5]", "data.std=[1,2]"], "data.std", "(1.0, 2.0)", ["data.mean=(0.5,)"]),
    "parquet without a folder": (["data.name=parquet"], "data.root", "None", ["train-*.parquet"]),
    # YAML values that its own reader chokes on
    "value that contains itself": (["name=&a [*a]"], "name", "", []),
    # what the seed's 64-bit streams cannot take
    "seed too large": ([f"seed={2**64}"], "seed", str(2**64), []),
    "mean that is no number": (["data.mean=[.nan]", "data.std=[1]"], "data.mean.0", "nan", ["finite"]),
}


@pytest.mark.parametrize("case", BAD_VALUES)
def test_bad_value_is_explained_in_one_line(case: str) -> None:
    overrides, key, value, hints = BAD_VALUES[case]
    with pytest.raises(ConfigError) as caught:
        load_config(None, overrides)
    message = str(caught.value)
    assert message.startswith(f"{key}={value}")
    assert "\n" not in message
    for hint in hints:
        assert hint in message
    assert caught.value.key == key


def _refusal(override: str) -> str:
    try:
        load_config(None, [override])
    except ConfigError as error:
        return str(error)
    return ""


def test_every_list_is_asked_for_with_an_example_that_works() -> None:
    keys = [*dict(flatten(Config())), "loss.taps.teacher", "loss.taps.student"]
    refusals = {key: _refusal(f"{key}=true") for key in keys}
    assert not [refusal for refusal in refusals.values() if "array" in refusal]
    found = {key: re.search(r"expected a list, for example (.*)$", refusal) for key, refusal in refusals.items()}
    examples = {key: match[1] for key, match in found.items() if match}
    assert {"seeds", "data.mean", "data.std", "data.image_shape", "generator.channels"} < set(examples)
    assert all(example.startswith(f"{key}=") for key, example in examples.items())
    # data.mean and data.std go together, and layers are given in one of two ways
    for some in ("seeds|data|generator|supervised", r"loss\.attention", r"loss\.taps"):
        load_config(None, [example for key, example in examples.items() if re.match(some, key)])


@pytest.mark.parametrize("override", ["loss.beta", "=3", "loss.beta:3", ""])
def test_override_that_is_no_assignment(override: str) -> None:
    with pytest.raises(UserError, match=r"expected dotted\.key=value, for example loss\.beta=0") as caught:
        load_config(None, [override])
    assert str(caught.value).startswith(repr(override))


def test_other_problems_are_notes() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["loss.beta=x", "loss.temperature=x", "batch_size=x"])
    assert caught.value.key == "batch_size"  # the first in the order of the schema
    expected = ["also: loss.temperature='x': expected a valid number", "also: loss.beta='x': expected a valid number"]
    assert caught.value.__notes__ == expected
    assert pickle.loads(pickle.dumps(caught.value)).__notes__ == expected


def test_of_many_problems_five_are_said() -> None:
    keys = (
        "iterations",
        "batch_size",
        "seed",
        "loss.beta",
        "loss.temperature",
        "optimizer.student_lr",
        "generator.z_dim",
    )
    with pytest.raises(ConfigError) as caught:
        load_config(None, [f"{key}=x" for key in keys])
    assert len(caught.value.__notes__) == 5
    assert caught.value.__notes__[-1] == "also: 2 more"


def test_one_problem_of_a_union_counts_once() -> None:
    """`data.mean` may be null or a list; neither fits, and that is one mistake."""
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["data.mean=grey"])
    assert not hasattr(caught.value, "__notes__")


BILLION_LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in itertools.pairwise("abcdefgh")
)
"""Three hundred bytes that some programs unfold to gigabytes."""


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("loss: [1", "not valid YAML"),
        ("loss:\n\tbeta: 1", "not valid YAML"),
        ("a: !!python/object/apply:os.system [ls]", "not valid YAML"),
        ("- loss\n- beta", "expected a mapping of keys, got list"),
        ("just words", "expected a mapping of keys, got str"),
        ("2024-01-01: 3", "2024-01-01"),
        ("loss: {}\niterations: 3\nloss: {beta: 1}", "has the key loss twice"),
        ("loss: {beta: 1, beta: 2}", "has the key beta twice"),
        (BILLION_LAUGHS, "its aliases stand for 54,481,013 values, and 100,000 are the most"),
        ("loss: &loss {beta: *loss}", "nested too deep, or contains itself"),
        ("loss: " + "[" * 2000 + "]" * 2000, "nested too deep, or contains itself"),
        ("iterations: 10  #" + " " * 500_000, "more than 500,000 characters"),
    ],
    ids=lambda value: value[:40],
)
def test_broken_file(tmp_path: Path, written: str, problem: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(written)
    with pytest.raises(UserError) as caught:
        load_config(path)
    message = str(caught.value)
    assert problem in message
    assert "\n" not in message


def test_file_with_a_bad_value_names_the_key(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("loss:\n  beta: -2\n")
    with pytest.raises(ConfigError, match=r"^loss\.beta=-2: ") as caught:
        load_config(path)
    assert caught.value.key == "loss.beta"


def test_missing_file_suggests_a_neighbour(tmp_path: Path) -> None:
    (tmp_path / "digits.yaml").touch()
    with pytest.raises(UserError) as caught:
        load_config(tmp_path / "digit.yaml")
    assert str(caught.value) == f"--config {tmp_path / 'digit.yaml'}: no such file; did you mean 'digits.yaml'?"


@pytest.mark.parametrize("name", ["zzzzzz.yaml", "no/such/folder.yaml"])
def test_missing_file_without_a_neighbour(tmp_path: Path, name: str) -> None:
    (tmp_path / "digits.yaml").touch()
    with pytest.raises(UserError) as caught:
        load_config(tmp_path / name)
    assert str(caught.value) == f"--config {tmp_path / name}: no such file"


def test_file_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--config .*: cannot be read: "):
        load_config(tmp_path)


def test_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match=r"^--config .*: cannot be read: "):
        load_config(path)
