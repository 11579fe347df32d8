"""Iterations, transition curves and memory on the device, and what the device can do."""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from benchmarks import iteration, transitions
from benchmarks.iteration import TABLE_1, Form
from benchmarks.measure import convolution_gflops, fresh_compiler, matrix_product_gflops, synchronise, tensor_cores
from benchmarks.on_device.checks import FAST
from benchmarks.on_device.session import Entry, Session, Skipped
from benchmarks.subject import PAIR, configured, student, teacher
from zskt_dist.distributed.world import World
from zskt_dist.models import ImageShape
from zskt_dist.speed import PLAIN, FastPaths
from zskt_dist.tasks.transfer import TransferTraining
from zskt_dist.training.result import peak_memory_bytes

TOY_PAIR = ("wrn-10-1", "wrn-10-1")
IMAGE_SIZES = (32, 64, 224)
ROWS = (128, 1024, 4096)
PRECISIONS: dict[str, tuple[bool, torch.dtype | None]] = {
    "float32": (False, None),
    "tf32": (True, None),
    "bfloat16": (True, torch.bfloat16),
}
"""TF32, autocast."""
_SMALL = ("generator.channels=[8,4]", "batch_size=4", "transfer.student_steps=1", "speed.compile=false")
_COMPILE_SECONDS = 240.0
_CALLS = 10
"""In a row, so that a GPU need not wait for its host."""


def run_iteration(session: Session) -> None:
    session.answer("iteration", "peaks", partial(_peaks, session), needs=20)
    pairs = [TOY_PAIR] if session.toy else sorted(TABLE_1, key=lambda pair: pair != PAIR)
    for pair in pairs:
        session.answer("iteration", " -> ".join(pair), partial(_iteration, session, pair), needs=60)
    for precision in PRECISIONS:
        name = f"compiled {' -> '.join(pairs[0])} {precision}"
        session.answer("iteration", name, partial(_compiled, session, pairs[0], precision), needs=_COMPILE_SECONDS)


def run_transitions(session: Session) -> None:
    """MTE of the same curves, batched by several numbers of rows, against batch 1."""
    pair, images, steps = (("lenet", "lenet"), 2, 2) if session.toy else (PAIR, 200, 20)
    for rows in ROWS[:1] if session.toy else ROWS:
        work = partial(transitions.measure, pair, images, steps, 1, 3, device=session.device, rows=rows)
        session.answer("transitions", f"{rows} rows", work, needs=60)


def run_memory(session: Session) -> None:
    sizes, pairs = ((16,), (TOY_PAIR,)) if session.toy else (IMAGE_SIZES, TABLE_1)
    forms = {"plain": (PLAIN, None), "fast": (FAST, None), "fast, micro_batch 32": (FAST, 32)}
    forms["fast, bfloat16"] = (replace(FAST, autocast=torch.bfloat16), None)
    for size in sizes:
        for pair in pairs:
            for name, (fast_paths, micro) in forms.items():
                work = partial(_memory, session, pair, size, fast_paths, micro)
                session.answer("memory", f"{' -> '.join(pair)}, {size} px, {name}", work, needs=30)


def _iteration(session: Session, pair: Sequence[str]) -> Entry:
    forms = {}
    if session.is_cuda:
        for precision, (tf32, autocast) in PRECISIONS.items():
            for name, graphs in (("eager", False), ("graphs", True)):
                forms[f"{precision}_{name}"] = Form(replace(FAST, cuda_graphs=graphs, autocast=autocast), tf32)
    config = configured(*(_SMALL if session.toy else ()), pair=pair)
    answer = iteration.measure(config, session.device, repetitions=2 if session.toy else 7, forms=forms)
    return answer | {"forms": _shares(session, answer, forms)}


def _compiled(session: Session, pair: Sequence[str], precision: str) -> Entry:
    """torch.compile alone and recorded, in one precision; every graph is compiled in the warm-up."""
    if not session.is_cuda:
        raise Skipped("needs CUDA; takes minutes on CPU")
    fresh_compiler()
    tf32, autocast = PRECISIONS[precision]
    forms = {
        f"{precision}_{name}": Form(replace(FAST, compile=True, cuda_graphs=graphs, autocast=autocast), tf32)
        for name, graphs in (("compile", False), ("compile_graphs", True))
    }
    answer = iteration.measure(configured(pair=pair), session.device, repetitions=7, forms=forms)
    return answer | {"forms": _shares(session, answer, forms)}


def _shares(session: Session, answer: Entry, forms: dict[str, Form]) -> Entry:
    """Of each form: how much faster than the authors' schedule, and its share of the peaks of its precision."""
    peaks, shares = session.stages["iteration"].get("peaks", {}), {}
    for name in forms:
        achieved = answer["gflop_per_iteration"] / answer[f"{name}_seconds"]
        peak = peaks.get(name.partition("_")[0], {})
        shares[name] = {
            "seconds": answer[f"{name}_seconds"],
            "ratio": answer[f"ratio_{name}"],
            "achieved_gflops": achieved,
            "of_matrix_product_peak": achieved / peak["matrix_product_gflops"] if peak else None,
            "of_convolution_peak": achieved / peak["convolution_gflops"] if peak else None,
        }
    return shares


def _peaks(session: Session) -> Entry:
    """GFLOP/s of the best of several sizes, by precision."""
    answer, device = {}, session.device
    sizes, batch = ((64,), 2) if session.toy else ((4096, 8192), 128)
    for precision, (tf32, autocast) in PRECISIONS.items():
        dtype = autocast or torch.float32
        with tensor_cores(tf32), torch.no_grad():
            products = [matrix_product_gflops(size, dtype=dtype, device=device, calls=_CALLS) for size in sizes]
            convolutions = [
                convolution_gflops(width, batch, dtype=dtype, device=device, calls=_CALLS)
                for width in (16, 32, 64, 128)
            ]
            answer[precision] = {
                "matrix_product_gflops": max(products),
                "convolution_gflops": max(convolutions),
            }
    return answer


def _memory(session: Session, pair: Sequence[str], size: int, fast_paths: FastPaths, micro: int | None) -> Entry:
    """Peak of two iterations of a task; of CPU the peak of this process so far, which only grows."""
    device, shape = session.device, ImageShape(3, size, size)
    overrides = [*(_SMALL if session.toy else ()), *([f"engine.micro_batch={micro}"] if micro else [])]
    config = configured(*overrides, pair=pair)
    if session.is_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    answer: Entry = {"image_size": size, "batch_size": config.batch_size, "peak_bytes": None}
    try:
        networks = teacher(config, shape, device), student(config, shape)
        task = TransferTraining(config, *networks, shape, World(device), fast_paths=fast_paths)
        for number in range(2):
            task.step(number)
        synchronise()
        started = time.perf_counter()
        task.step(2)
        synchronise()
    except torch.cuda.OutOfMemoryError as error:
        return answer | {"message": str(error).partition(".")[0]}
    took = time.perf_counter() - started
    return answer | {"peak_bytes": peak_memory_bytes(device), "seconds": took}
