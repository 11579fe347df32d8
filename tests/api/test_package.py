"""What `import zskt_dist` brings: names, and nothing heavy before one of them is used."""

import importlib
import inspect
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

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


def test_the_verb_of_that_name_does_not_hide_the_function() -> None:
    verb = importlib.import_module("zskt_dist.evaluate")
    assert callable(verb.main)
    assert zskt_dist.evaluate(nn.Flatten(), torch.rand(2, 1, 1, 3)).images == 2


def test_progress_travels() -> None:
    progress = zskt_dist.Progress(1, 2, {"kl": 0.5}, 3.0)
    assert pickle.loads(pickle.dumps(progress)) == progress


def test_the_function_shows_as_itself() -> None:
    """For `help()`, editors and process pools, though it is a module, too."""
    function = importlib.import_module("zskt_dist.api").evaluate
    assert inspect.signature(zskt_dist.evaluate) == inspect.signature(function)
    assert "batch_size" in inspect.signature(zskt_dist.evaluate).parameters
    assert inspect.getdoc(zskt_dist.evaluate) == inspect.getdoc(function)
    assert pickle.loads(pickle.dumps(zskt_dist.evaluate)) is zskt_dist.evaluate
