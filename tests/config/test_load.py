import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from zskt_dist.config import Config, config_of, differing_keys, dump_yaml, flatten, load_config, parse_config
from zskt_dist.errors import ConfigError

REPOSITORY = Path(__file__).parents[2]
FILES = sorted((REPOSITORY / "configs").rglob("*.yaml"))  # without the sweeps, to which a link leads
GRAPHS = [path for path in FILES if path.name.startswith("graph")]
CONFIGS = [path for path in FILES if path not in GRAPHS and path.parent.name != "sweeps"]
HEAVY = ["torch", "ray", "mlflow", "deepspeed", "numpy", "pyarrow"]


def _config(*overrides: str) -> Config:
    return load_config(None, overrides)


def test_importing_the_configuration_loads_nothing_heavy() -> None:
    program = f"import sys, zskt_dist.config; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_there_are_shipped_configurations() -> None:
    assert CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_shipped_configuration_loads(path: Path) -> None:
    """And every key in it says something: the file is not the defaults."""
    assert load_config(path) != Config()


def test_defaults_are_the_authors_code() -> None:
    """Facts, section 1."""
    config = Config()
    assert (config.optimizer.student_lr, config.optimizer.generator_lr, config.optimizer.clip_norm) == (2e-3, 1e-3, 5)
    assert (config.batch_size, config.generator.z_dim, config.generator.channels) == (128, 100, (128, 64))
    assert (config.transfer.generator_steps, config.transfer.student_steps) == (1, 10)
    assert config.transfer.pseudo_batch == "post_update"
    assert config.transfer.generator_step_statistics == "update"
    assert (config.loss.divergence, config.loss.temperature, config.loss.reduction) == ("forward_kl", 1.0, "mean")
    assert (config.loss.beta, config.loss.attention) == (250, "squared_mean")
    supervised = config.supervised
    assert (supervised.learning_rate, supervised.momentum, supervised.weight_decay) == (0.1, 0.9, 5e-4)
    assert (supervised.milestones, supervised.decay) == ((0.3, 0.6, 0.8), 0.2)


def test_file_and_overrides(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("iterations: 7\nloss:\n  beta: 3\n  temperature: 2.5\n")
    config = load_config(path, ["loss.beta=4", "student.arch=wrn-40-1", "loss.beta=5", " seed = 9"])
    assert config.iterations == 7
    assert config.loss.temperature == 2.5
    assert config.loss.beta == 5  # the last one wins
    assert config.student.arch == "wrn-40-1"
    assert config.seed == 9
    assert config.batch_size == 128
    assert config.teacher == Config().teacher


@pytest.mark.parametrize("text", ["", "# only a comment\n"])
def test_empty_file_is_the_defaults(tmp_path: Path, text: str) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text(text)
    assert load_config(path) == Config()


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("1E3", 1000.0), ("+2.5e1", 25.0), (".5e0", 0.5), ("1e+2", 100.0), ("0.25", 0.25), ("3", 3.0)],
)
def test_scientific_notation_is_a_number(tmp_path: Path, text: str, value: float) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"optimizer:\n  student_lr: {text}\n")
    for config in (_config(f"optimizer.student_lr={text}"), load_config(path)):
        assert config.optimizer.student_lr == value
        assert type(config.optimizer.student_lr) is float


@pytest.mark.parametrize("text", ["'1e-3'", "1e", "e3", "1e-3x"])
def test_what_only_looks_like_scientific_notation_is_text(text: str) -> None:
    assert _config(f"data.root={text}").data.root == text.strip("'")


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("name=7", "name", "7"),
        ("experiment=2024", "experiment", "2024"),
        ("name=010", "name", "010"),
        ("name=1e5", "name", "1e5"),
        ("name=1_000", "name", "1_000"),
        ("name=1.10", "name", "1.10"),
        ("name=no", "name", "no"),
        ("name='7'", "name", "7"),
        ("experiment=007", "experiment", "007"),
        ("iterations=1_000", "iterations", 1000),
        ("name=", "name", None),
        ("name=null", "name", None),
        ("name=2024-13-45", "name", "2024-13-45"),  # no day of any calendar, and a fine name
        ("data.root='12'", "data.root", "12"),
        ("data.download=true", "data.download", True),
        ("tracking.uri=http://host:5000/a=b", "tracking.uri", "http://host:5000/a=b"),
        ("loss.attention_layers=[]", "loss.attention_layers", []),
        ("loss.attention_layers=[0, 2]", "loss.attention_layers", [0, 2]),
        ("loss.attention_layers=null", "loss.attention_layers", None),
        ("loss.taps=auto", "loss.taps.teacher", None),
        ("loss.taps=none", "loss.taps.student", []),
        ("loss.taps={teacher: [layer1], student: ['3']}", "loss.taps.student", ["3"]),
        ("generator.channels=[8,4]", "generator.channels", [8, 4]),
        ("generator.channels=8,4", "generator.channels", [8, 4]),
        ("data.image_shape=1,28,28", "data.image_shape", [1, 28, 28]),
        ("data.image_shape= 1, 28, 28", "data.image_shape", [1, 28, 28]),
        ("seeds=0,1,2", "seeds", [0, 1, 2]),
        ("seeds=3", "seeds", [3]),
        ("seeds=", "seeds", None),
        ("data.class_names=cat,dog", "data.class_names", ["cat", "dog"]),
        ("data.class_names=cat", "data.class_names", ["cat"]),
        ("data.class_names=01,02", "data.class_names", ["01", "02"]),
        ("data.class_names=[01,02]", "data.class_names", ["01", "02"]),
        ("supervised.milestones=0.5", "supervised.milestones", [0.5]),
        ("supervised.milestones=.25,5e-1", "supervised.milestones", [0.25, 0.5]),
        ("loss.attention_layers=2", "loss.attention_layers", [2]),
        ("loss.divergence=mine.losses:gap", "loss.divergence", "mine.losses:gap"),
        ("teacher.seed=run", "teacher.seed", "run"),
        ("teacher.seed=3", "teacher.seed", 3),
    ],
)
def test_values_on_the_command_line(override: str, key: str, value: object) -> None:
    assert dict(flatten(_config(override)))[key] == value


def test_lists_without_brackets_everywhere(tmp_path: Path) -> None:
    """On the command line, in YAML and in Python, however a list is written."""
    expected = _config(
        "data.image_shape=[1,28,28]",
        "data.mean=[0.13]",
        "data.std=[0.31]",
        "loss.taps.teacher=[a,b]",
        "loss.taps.student=[c,d]",
        "launch.workers=[1,4]",
        "launch.kind=ray",
    )
    path = tmp_path / "mine.yaml"
    path.write_text(
        "data: {mean: 0.13, std: '0.31'}\nloss:\n  taps:\n    teacher: a, b\n    student: c,d\n"
        "launch: {kind: ray, workers: '1,4'}\n"
    )
    assert load_config(path, ["data.image_shape=1,28,28"]) == expected
    path.write_text("data:\n  image_shape: 1,28,28\n  mean: 0.13\n  std: [0.31]\n")
    words = ["loss.taps.teacher=a,b", "loss.taps.student=c,d", "launch.workers=1,4", "launch.kind=ray"]
    assert load_config(path, words) == expected
    in_python = {
        "data.image_shape": (1, 28, 28),
        "data.mean": 0.13,
        "data.std": np.array([0.31]),
        "loss.taps": {"teacher": ("a", "b"), "student": "c,d"},
        "launch": {"workers": np.array([1, 4]), "kind": "ray"},
    }
    assert config_of(in_python) == expected
    assert config_of({"iterations": np.int64(5), "loss.beta": np.float32(0.5)}) == _config(
        "iterations=5", "loss.beta=0.5"
    )


def test_names_in_files_keep_their_zeros(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: 010\nexperiment: 7\n")
    assert (load_config(path).name, load_config(path).experiment) == ("010", "7")


FLOATS = st.floats(min_value=1e-12, max_value=1e12)
TREES = st.fixed_dictionaries(
    {},
    optional={
        "name": st.none() | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
        "seed": st.integers(0, 2**63),
        "runs_dir": st.text(st.characters(codec="utf-8", exclude_categories=["Cs"])),
        "generator": st.fixed_dictionaries({"channels": st.lists(st.integers(1, 999), min_size=2, max_size=2)}),
        "loss": st.fixed_dictionaries(
            {"beta": FLOATS, "attention_layers": st.none() | st.lists(st.integers(0, 9), max_size=4, unique=True)}
        )
        | st.lists(st.tuples(st.text(max_size=9), st.sampled_from(["1.10", "3", "null", "layer1"]))).map(
            lambda pairs: {"taps": {"teacher": [a for a, _ in pairs], "student": [b for _, b in pairs]}}
        ),
        "supervised": st.fixed_dictionaries({"milestones": st.lists(st.floats(1e-6, 0.999), max_size=4)}),
    },
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(tree=TREES)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, tree: dict[str, object]) -> None:
    """Names such as `1e5`, `null` or `2024-01-01` come back as text, floats to the last bit."""
    config = parse_config(tree)
    path = tmp_path_factory.getbasetemp() / "round-trip.yaml"
    path.write_text(dump_yaml(config), encoding="utf-8")
    assert load_config(path) == config


@pytest.mark.parametrize("name", ["1e5", "null", "true", "2024-01-01", "0x10", "1_000", "no", "010"])
def test_names_that_yaml_would_read_as_something_else(tmp_path: Path, name: str) -> None:
    config = parse_config({"name": name})
    assert config.name == name
    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml(config))
    assert load_config(path) == config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_shipped_configuration_round_trip(tmp_path: Path, path: Path) -> None:
    config = load_config(path)
    written = tmp_path / "config.yaml"
    written.write_text(dump_yaml(config))
    assert load_config(written) == config


def test_dump_writes_every_key(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml(Config()))
    written = path.read_text()
    for key, _ in flatten(Config()):
        assert f"{key.split('.')[-1]}:" in written


def test_configuration_cannot_be_changed() -> None:
    config = Config()
    for section, key, value in ((config, "iterations", 3), (config.loss, "beta", 3.0)):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, key, value)
    assert config == Config()


def test_a_teacher_in_shards_is_the_same_teacher_and_one_in_bfloat16_is_not() -> None:
    deepspeed = ["engine.kind=deepspeed", "engine.zero_stage=3"]
    sharded, bfloat16 = (load_config(None, [*deepspeed, f"engine.teacher={form}"]) for form in ("sharded", "bfloat16"))
    assert differing_keys(sharded, load_config(None)) == []
    assert differing_keys(bfloat16, load_config(None)) == ["engine.teacher"]


def test_a_key_of_speed_beside_its_preset() -> None:
    speed = load_config(None, ["speed=plain", "speed.compile=true"]).speed
    assert (speed.compile, speed.channels_last, speed.folded_teacher) == (True, False, False)
    with pytest.raises(ConfigError, match=r"speed='fast': expected auto, plain, or one of its keys: channels_last, "):
        load_config(None, ["speed=fast"])


def test_differing_keys() -> None:
    before = _config("loss.beta=1", "seed=3")
    after = _config("loss.beta=2", "seed=3", "name=x", "launch.workers=2", "checkpoint.keep=5", "iterations=5")
    assert differing_keys(before, after) == ["iterations", "loss.beta"]
    assert differing_keys(before, before) == []
    assert differing_keys(before, after, ["loss", "name", "launch"]) == ["loss.beta"]


@pytest.mark.parametrize(
    ("overrides", "fine"),
    [
        (["launch.workers=2", "batch_size=127", "engine.micro_batch=63"], False),  # 63 and 64: one and two
        (["launch.workers=2", "batch_size=127", "engine.micro_batch=32"], True),  # two each
        (["launch.workers=2", "batch_size=127"], True),
        (["launch.workers=[2,3]", "launch.kind=ray", "engine.micro_batch=42"], False),  # 42, 43 and 43 of 128
        (["launch.workers=[1,2]", "launch.kind=ray", "engine.micro_batch=42"], True),
    ],
)
def test_synchronised_batch_norm_needs_equally_many_micro_batches(overrides: list[str], fine: bool) -> None:
    _config(*overrides)
    if fine:
        _config("engine.batch_norm=sync", *overrides)
    else:
        with pytest.raises(ConfigError, match=r"engine.micro_batch.*all wait"):
            _config("engine.batch_norm=sync", *overrides)
