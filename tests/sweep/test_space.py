"""Search spaces: all combinations once, the same draws for the same sweep, mistakes told before anything runs."""

import math
from pathlib import Path

import pytest

from zskt_dist.config import load_config
from zskt_dist.config.fields import Purpose
from zskt_dist.config.keys import keys_for
from zskt_dist.errors import UserError
from zskt_dist.sweep.space import load_sweep
from zskt_dist.tasks.stages import identity

SHIPPED = sorted((Path(__file__).parents[2] / "tune").glob("*.yaml"))

ONE = "title: t\nname: one\nconfig: base.yaml\nspace:\n"
ASHA = "  loss.beta: {grid: [1, 2]}\nscheduler: asha\n"
ONE_SEED, NO_DATA = "  seed: {grid: [1]}\n", "data.name=none"
ASHA_OF_TWO = "  seed: {grid: [0, 1]}\nscheduler: asha\ngrace: 2\nset: {evaluation.every: 2}\n"
NO_YARDSTICK, NO_IMAGES = "evaluation.yardstick=false", "evaluation.held_out_images=0"
PSEUDO_DATA, SHARDED = ["pseudo_data=folder", "loss.beta=0"], ["engine.kind=deepspeed", "engine.teacher=sharded"]


def _write(folder: Path, text: str) -> Path:
    (folder / "base.yaml").write_text("iterations: 5\nloss: {temperature: 2}\n")
    path = folder / "sweep.yaml"
    path.write_text(text)
    return path


def test_there_are_shipped_sweeps() -> None:
    assert len(SHIPPED) == 6


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_sweeps_are_whole_and_have_no_trial_twice(path: Path) -> None:
    sweep, trials = load_sweep(path, [])
    assert len(trials) >= 8
    assert len({identity("train", trial.config) for trial in trials}) == len(trials)
    assert sweep.select_by == "label_free_score"
    assert [trial.number for trial in trials] == list(range(len(trials)))


def test_grids_are_crossed_and_joined_keys_move_together(tmp_path: Path) -> None:
    text = (
        ONE
        + '  loss.beta: {grid: [0, 3]}\n  "teacher.arch, student.arch": {grid: [[lenet, lenet], [wrn-10-1, lenet]]}\n'
    )
    _, trials = load_sweep(_write(tmp_path, text), ["batch_size=4"])
    seen = {(t.config.loss.beta, t.config.teacher.arch, t.config.student.arch) for t in trials}
    assert seen == {(b, t, "lenet") for b in (0, 3) for t in ("lenet", "wrn-10-1")}
    assert len(trials) == 4
    assert {(t.config.batch_size, t.config.iterations, t.config.launch.kind) for t in trials} == {(4, 5, "ray")}
    assert trials[0].settings == {"loss.beta": 0, "teacher.arch": "lenet", "student.arch": "lenet"}


def test_random_rules_draw_what_they_say_and_the_same_again(tmp_path: Path) -> None:
    text = ONE + (
        "  optimizer.student_lr: {loguniform: [1.0e-4, 1.0e-2]}\n  loss.beta: {uniform: [1, 2]}\n"
        "  transfer.student_steps: {choice: [2, 5]}\n  seed: {grid: [0, 1]}\nsamples: 100\n"
    )
    path = _write(tmp_path, text)
    _, trials = load_sweep(path, [])
    assert len(trials) == 200
    rates = [trial.config.optimizer.student_lr for trial in trials]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert len(set(rates)) == 100
    # The logarithm is uniform on [-4, -2]: its mean has a standard error of 0.58 / sqrt(100) = 0.06.
    assert sum(math.log10(rate) for rate in rates) / 200 == pytest.approx(-3, abs=0.2)
    assert all(1 <= trial.config.loss.beta <= 2 for trial in trials)
    assert {trial.config.transfer.student_steps for trial in trials} == {2, 5}
    assert [trial.settings for trial in load_sweep(path, [])[1]] == [trial.settings for trial in trials]
    other = load_sweep(path, ["sweep.seed=1"])[1]
    assert [trial.settings for trial in other] != [trial.settings for trial in trials]


UNSEEN = {
    "evaluation.held_out_images": "[1, 2]",
    "evaluation.snapshots": "[1, 2]",
    "transitions.images": "[1, 2]",
    "tracking.log_every": "[1, 2]",
    "checkpoint.every": "[1, 2]",
    "launch.max_failures": "[1, 2]",
    "launch.cpus_per_worker": "[1, 2]",
    "data.images_per_class": "[1, 2]",
    "supervised.network": "[teacher, student]",
    "distill.beta": "[1, 2]",
    "speed.channels_last": "[auto, false]",
    "speed.folded_teacher": "[auto, false]",
    "speed.low_resolution": "[auto, false]",
    "speed.compile": "[auto, false]",
    "speed.cuda_graphs": "[auto, false]",
    "engine.activation_checkpointing": "[true, false]",
}


@pytest.mark.parametrize("key", UNSEEN)
def test_keys_that_make_no_other_run_are_not_swept(tmp_path: Path, key: str) -> None:
    """Their values would silently be one trial: the configurations have one hash."""
    hashes = {identity("train", load_config(None, [f"{key}={value}"])) for value in UNSEEN[key].strip("[]").split(", ")}
    assert len(hashes) == 1
    with pytest.raises(UserError, match="does not change"):
        load_sweep(_write(tmp_path, ONE + f"  {key}: {{grid: {UNSEEN[key]}}}\n"), [])


def test_every_key_of_speed_is_known_to_make_no_other_run() -> None:
    assert set(keys_for(Purpose.SPEED)) <= UNSEEN.keys()


@pytest.mark.parametrize(
    ("key", "values", "words"),
    [
        ("speed", "[auto, plain]", []),
        ("evaluation", "[{snapshots: 1}, {snapshots: 2}]", []),
        ("generator.z_dim", "[5, 10]", ["pseudo_data=folder", "loss.beta=0"]),
    ],
    ids=["preset", "section", "of no use with pseudo-data"],
)
def test_values_that_make_one_run_are_told(tmp_path: Path, key: str, values: str, words: list[str]) -> None:
    with pytest.raises(UserError, match=f"^{key}=.* makes the same run as {key}=") as raised:
        load_sweep(_write(tmp_path, ONE + f"  {key}: {{grid: {values}}}\n"), words)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "words",
    [
        ["sweep.select_by=accuracy", NO_YARDSTICK, NO_IMAGES],
        [NO_IMAGES],
        [NO_YARDSTICK],
        [NO_IMAGES, "method=inversion"],
        SHARDED,
    ],
    ids=["accuracy", "yardstick", "generators", "inversion", "sharded teacher"],
)
def test_asha_needs_one_thing_to_rank_trials_by(tmp_path: Path, words: list[str]) -> None:
    assert len(load_sweep(_write(tmp_path, ONE + ASHA_OF_TWO), words)[1]) == 2


CANNOT_RANK = {
    "nothing": ([NO_YARDSTICK, NO_IMAGES], "use evaluation.yardstick=true, or evaluation.held_out_images=256"),
    "inversion": ([NO_YARDSTICK, "method=inversion"], "use evaluation.yardstick=true"),
    "pseudo-data": ([NO_YARDSTICK, *PSEUDO_DATA, "teacher.checkpoint=t.pt"], "use evaluation.yardstick=true"),
    "no teacher": (PSEUDO_DATA, "use teacher.checkpoint"),
    "sharded teacher": (
        [NO_IMAGES, *SHARDED],
        "use engine.teacher=replicated, or evaluation.held_out_images=256",
    ),
}


@pytest.mark.parametrize("case", CANNOT_RANK)
def test_asha_without_anything_to_rank_trials_by_is_refused(tmp_path: Path, case: str) -> None:
    words, remedy = CANNOT_RANK[case]
    with pytest.raises(UserError) as raised:
        load_sweep(_write(tmp_path, ONE + ASHA_OF_TWO), words)
    told, _, use = str(raised.value).rpartition("; ")
    problem = "asha ranks trials by the yardstick, or by images of their generators"
    assert (told, use) == (f"evaluation.yardstick={NO_YARDSTICK not in words}: {problem}", remedy)


def test_the_seeds_of_a_draw_share_it(tmp_path: Path) -> None:
    text = ONE + "  loss.beta: {uniform: [1, 2]}\n  seed: {grid: [0, 1, 2]}\nsamples: 2\n"
    _, trials = load_sweep(_write(tmp_path, text), [])
    betas = [trial.config.loss.beta for trial in trials]
    assert [trial.config.seed for trial in trials] == [0, 1, 2, 0, 1, 2]
    assert betas == [betas[0]] * 3 + [betas[3]] * 3
    assert betas[0] != betas[3]


def test_equal_draws_are_one_trial(tmp_path: Path) -> None:
    _, trials = load_sweep(_write(tmp_path, ONE + "  loss.beta: {choice: [1, 2]}\nsamples: 50\n"), [])
    assert sorted(trial.config.loss.beta for trial in trials) == [1, 2]


def test_evaluation_settings_become_words(tmp_path: Path) -> None:
    text = ONE + "  seed: {grid: [1]}\nevaluate: {transitions.images: 5}\n"
    _, (trial,) = load_sweep(_write(tmp_path, text), [])
    assert trial.evaluate == ["transitions.images=5"]


MISTAKES = {
    "no rule": ("  seed: {}\n", [], "space.seed: give exactly one of grid"),
    "two rules": ("  seed: {grid: [1], choice: [2]}\n", [], "space.seed: give exactly one of grid"),
    "range turned round": ("  loss.beta: {uniform: [2, 1]}\n", [], "uniform needs [low, high]"),
    "logarithm of zero": ("  loss.beta: {loguniform: [0, 1]}\n", [], "0 < low"),
    "empty grid": ("  seed: {grid: []}\n", [], "at least 1 item"),
    "unknown key of the sweep": ("  seed: {grid: [1]}\nsample: 3\n", [], "no such key; there are: title"),
    "unknown key of the configuration": (
        "  loss.bta: {grid: [1]}\n",
        [],
        "loss.bta=1: no such key; did you mean",
    ),
    "value that cannot work": (
        "  loss.beta: {grid: [1, -1]}\n",
        [],
        "loss.beta=-1: expected greater",
    ),
    "uneven values": ('  "seed, loss.beta": {grid: [[1, 2], [3]]}\n', [], "needs a list of 2 values each time"),
    "key twice": (
        '  seed: {grid: [1]}\n  "seed, loss.beta": {grid: [[1, 2]]}\n',
        [],
        "in the search space twice",
    ),
    "name": ("  name: {grid: [a, b]}\n", [], "every trial is a run of its own"),
    "seeds": ("  loss.beta: {grid: [1]}\n", ["seeds=[0,1]"], "sweep over `seed`"),
    "override of the space": ("  loss.beta: {grid: [1]}\n", ["loss.beta=2"], "is what the sweep varies"),
    "experiment": ("  experiment: {grid: [a, b]}\n", [], "is the same for all trials"),
    "place": ("  runs_dir: {grid: [a, b]}\n", [], "is the same for all trials"),
    "launcher": ("  launch.kind: {grid: [ray, local]}\n", [], "is the same for all trials"),
    "asha and few iterations": (ASHA, ["sweep.grace=6"], "sweep.grace=6: is more than a trial's 5 iterations"),
    "asha and no evaluation": (ASHA, ["sweep.grace=2", "evaluation.every=0"], "evaluation.every=0: asha judges"),
    "asha and late evaluation": (ASHA, ["sweep.grace=2", "evaluation.every=3"], "by their evaluations; use 1 to 2"),
    "asha and lengths": (
        "  iterations: {grid: [4, 5]}\nscheduler: asha\ngrace: 2\n",
        ["evaluation.every=2"],
        "iterations='…': cannot be swept with sweep.scheduler=asha",
    ),
    "accuracy without data": (
        ONE_SEED,
        [NO_DATA, "sweep.select_by=accuracy"],
        "sweep.select_by='accuracy': needs test",
    ),
    "evaluation without data": (
        ONE_SEED + "evaluate: {transitions.images: 5}\n",
        [NO_DATA],
        "needs test images: give data.name and data.root there",
    ),
    "override of the sweep": ("  seed: {grid: [1]}\n", ["sweep.select_by=loss"], "select_by: Input should be"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told_in_one_line(tmp_path: Path, mistake: str) -> None:
    space, overrides, said = MISTAKES[mistake]
    with pytest.raises(UserError) as raised:
        load_sweep(_write(tmp_path, ONE + space), overrides)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
