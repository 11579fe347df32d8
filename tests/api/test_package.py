"""What `import zskt_dist` brings: names, and nothing heavy before one of them is used."""

import importlib
import pickle
import subprocess
import sys

import pytest

import zskt_dist

NAMES = ("Evaluation", "Progress", "TransferResult", "TransitionError", "evaluate", "mean_transition_error", "transfer")


def test_the_import_is_light() -> None:
    program = (
        "import sys, zskt_dist; assert 'transfer' in dir(zskt_dist); "
        "assert not {'torch', 'numpy', 'pydantic', 'rich', 'zskt_dist.api'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_names() -> None:
    assert set(NAMES) == set(zskt_dist.__all__) == set(importlib.import_module("zskt_dist.api").__all__)
    assert set(NAMES) <= set(dir(zskt_dist))
    for name in NAMES:
        assert getattr(zskt_dist, name).__module__.startswith("zskt_dist")
    with pytest.raises(AttributeError, match="no attribute 'trnsfer'"):
        zskt_dist.trnsfer  # noqa: B018


def test_the_command_of_that_name_does_not_hide_the_function() -> None:
    program = (
        "import runpy, sys, zskt_dist; sys.argv = ['evaluate', '--help']\n"
        "try: runpy.run_module('zskt_dist.evaluate', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "from zskt_dist import evaluate; assert evaluate.__module__ == 'zskt_dist.api.measuring', evaluate"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_progress_travels() -> None:
    progress = zskt_dist.Progress(1, 2, {"kl": 0.5}, 3.0)
    assert pickle.loads(pickle.dumps(progress)) == progress
