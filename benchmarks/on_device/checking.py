"""How fast paths are compared: arithmetic without tensor cores, and tolerances."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from benchmarks.measure import tensor_cores
from benchmarks.on_device.session import Entry, Session, Skipped

State = dict[str, Tensor]

FLOAT64, RECORDED, FLOAT32, BFLOAT16 = 1e-6, 1e-5, 1e-3, 0.1
"""Largest relative differences; a recorded learning rate is a float32."""


@contextmanager
def arithmetic(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        with tensor_cores(False):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def compared(state: State, expected: State, tolerance: float) -> Entry:
    """Raises AssertionError where they differ by more."""
    assert state.keys() == expected.keys()
    worst = ("", 0.0)
    for name, value in state.items():
        value, other = value.double(), expected[name].double()
        try:
            torch.testing.assert_close(value, other, rtol=tolerance, atol=tolerance / 100)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None
        worst = max(worst, (name, (value - other).abs().max().item()), key=lambda pair: pair[1])
    return {"tolerance": tolerance, "largest_difference": worst[1], "of": worst[0]}


def need_cuda(session: Session) -> None:
    if not session.is_cuda:
        raise Skipped("needs CUDA")
