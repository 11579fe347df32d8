"""`loss.divergence` of the user's own, in runs of all tasks that read it."""

from pathlib import Path

import pytest
import torch

from tests.support.configs import tiny_config, tiny_overrides
from tests.support.jobs import train_in
from tests.support.transfers import assert_equal, state_of, tiny_pair, tiny_transfer
from zskt_dist.commands import train
from zskt_dist.config import Config, load_config
from zskt_dist.errors import ConfigError
from zskt_dist.networks.weights import read_weights
from zskt_dist.tasks.gap import check_gap, configured_gap, describe_gap
from zskt_dist.tasks.stages import identity

MINE = "tests.support.user_divergences"


def _config(*overrides: str) -> Config:
    return load_config(None, overrides)


def test_ours_and_yours() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 6, 4)
    own, ours = _config(f"loss.divergence={MINE}:forward_kl", "loss.temperature=2"), _config("loss.temperature=2")
    # ours divides by the four classes, as the authors do
    torch.testing.assert_close(configured_gap(own)(student, teacher), 4 * configured_gap(ours)(student, teacher))
    assert describe_gap(own) == f"{MINE}:forward_kl at T = 2 (mean over images)"
    assert describe_gap(ours) == "forward_kl at T = 2 (mean)"
    assert identity("train", own) != identity("train", ours)
    assert identity("pretrain", own) == identity("pretrain", ours)


@pytest.mark.parametrize(
    ("divergence", "problem"),
    [
        (f"{MINE}:total", "is no mean over images"),
        (f"{MINE}:forward_kll", "has no 'forward_kll'; did you mean 'forward_kl'?"),
        (f"{MINE}:NOT_A_FUNCTION", "is an int, and something to call is needed that returns a divergence"),
        ("no_such_module_anywhere:gap", "there is no module 'no_such_module_anywhere'"),
    ],
)
def test_what_is_refused(divergence: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, before anything is begun; a dry run says the same."""
    with pytest.raises(ConfigError) as raised:
        check_gap(_config(f"loss.divergence={divergence}"), 10)
    line = str(raised.value)
    assert line.startswith(f"loss.divergence='{divergence}': ")
    assert problem in line
    for option in ("--fresh", "--dry-run"):
        assert train.main([*tiny_overrides(tmp_path, f"loss.divergence={divergence}"), option]) == 2
        assert capsys.readouterr().err == f"error: {line}\n"
    assert not (tmp_path / "runs").exists()


def test_a_command_learns_by_it(tmp_path: Path) -> None:
    """The student of a KL that the user has written is that of ours, up to rounding, and not that of another loss."""
    plain = train_in("train", tiny_config(tmp_path, "name=ours", "loss.beta=0", "loss.reduction=batchmean"))
    mine = train_in("train", tiny_config(tmp_path, "name=mine", "loss.beta=0", f"loss.divergence={MINE}:mean_kl"))
    other = train_in("train", tiny_config(tmp_path, "name=other", "loss.beta=0", f"loss.divergence={MINE}:squared"))
    states = [read_weights(each.weights("student"), "") for each in (plain, mine, other)]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-3, atol=1e-4)
    assert any(not torch.allclose(states[2][name], value, atol=1e-3) for name, value in states[0].items())


def test_transfer_in_python() -> None:
    teacher, student = tiny_pair()
    other = tiny_pair()[1]
    tiny_transfer(teacher, student, {"loss.reduction": "batchmean"}, beta=0)
    result = tiny_transfer(teacher, other, {"loss.divergence": f"{MINE}:forward_kl"}, beta=0)
    assert result.settings["loss.divergence"] == f"{MINE}:forward_kl"
    for name, value in state_of(student).items():
        torch.testing.assert_close(state_of(other)[name], value, rtol=1e-3, atol=1e-4)
    before = state_of(other)
    with pytest.raises(ConfigError, match=r"of_seven_classes': fails on the logits \[6, 3\]"):
        tiny_transfer(teacher, other, {"loss.divergence": f"{MINE}:of_seven_classes"})
    assert_equal(state_of(other), before)
