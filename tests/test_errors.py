"""What messages for people have in common."""

import pytest

from zskt_dist.errors import did_you_mean


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("digit", "; did you mean 'digits'?"),
        ("beta", "; did you mean 'beta'?"),
        ("gama", "; did you mean 'gamma'?"),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_did_you_mean(word: str, hint: str) -> None:
    assert did_you_mean(word, (each for each in ("digits", "beta", "gamut", "gamma"))) == hint


def test_several_words_the_nearest_first() -> None:
    assert did_you_mean("gama", ["gamut", "beta", "gamma"], most=3) == "; did you mean 'gamma' or 'gamut'?"
