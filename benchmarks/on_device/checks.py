"""Every fast path against the plain one on this device, and where the host waits for it.

In float64 rounding is far below any tolerance that would hide a mistake: there parameters, statistics and metrics after
several iterations are compared. In float32 (TF32 off) and bfloat16 small networks drift apart within a few iterations,
Adam's first steps being signs of gradients; there the metrics of the first iteration are compared.
"""

import traceback
from dataclasses import replace
from functools import cache, partial

import torch

from benchmarks.measure import fresh_compiler
from benchmarks.on_device import inverting
from benchmarks.on_device.checking import BFLOAT16, FLOAT32, FLOAT64, RECORDED, State, arithmetic, compared, need_cuda
from benchmarks.on_device.session import Entry, Session, Skipped
from benchmarks.subject import Doubles, settled
from zskt_dist.algorithms.protocols import Metrics
from zskt_dist.config import Config, load_config
from zskt_dist.data import ImageDataset, Split
from zskt_dist.distributed.world import World
from zskt_dist.models import ImageShape
from zskt_dist.networks.building import new_network, seed_layers
from zskt_dist.networks.inputs import Inputs
from zskt_dist.speed import PLAIN, FastPaths
from zskt_dist.tasks import pretrain
from zskt_dist.tasks.base import Context, Training
from zskt_dist.tasks.stages import stages
from zskt_dist.tasks.transfer import TransferTraining

FAST = FastPaths(True, True, True, False, False, None)
EAGER = {
    "channels_last": replace(PLAIN, channels_last=True),
    "folded_teacher": replace(PLAIN, folded_teacher=True),
    "low_resolution": replace(PLAIN, low_resolution=True),
    "all": FAST,
}
MODES = ("post_update", "pre_update", "fresh")
SHAPE, CLASSES = ImageShape(3, 12, 9), 5
ITERATIONS, RECORDED_ITERATIONS = 3, 16  # recording begins with the fourth
_TINY = (
    "teacher.arch=wrn-10-2",
    "student.arch=wrn-10-1",
    "generator.channels=[8,4]",
    "generator.z_dim=8",
    "batch_size=8",
    "supervised.batch_size=8",
    "transfer.student_steps=2",
    "transfer.generator_steps=2",
    "evaluation.held_out_images=0",
    "iterations=100",
)


def run(session: Session) -> None:
    def check(name: str, work: partial[Entry]) -> None:
        session.answer("check", name, work)

    device = session.device
    for mode in MODES:
        for name, fast_paths in EAGER.items():
            check(f"{name} {mode} float64", partial(_equal, device, fast_paths, f"transfer.pseudo_batch={mode}"))
        check(f"compile {mode} float64", partial(_compiled, session, f"transfer.pseudo_batch={mode}"))
        check(f"cuda_graphs {mode} float64", partial(_recorded, session, f"transfer.pseudo_batch={mode}"))
    check("cuda_graphs micro_batch float64", partial(_recorded, session, "engine.micro_batch=3"))
    terms = ("generator_terms.consistency=1.0", "generator_terms.diversity=1.0", "generator_terms.teacher_entropy=1.0")
    check("cuda_graphs generator_terms float64", partial(_recorded, session, *terms))
    again = "engine.activation_checkpointing=true"
    check("cuda_graphs activation_checkpointing float64", partial(_recorded, session, again))
    check("cuda_graphs frozen_statistics float64", partial(_recorded, session, _KEEP))
    check("cuda_graphs resumed float64", partial(_resumed, session))
    check("cuda_graphs dropout float64", partial(_recorded, session, f"student.arch={_NETWORKS}:Dropping"))
    check("cuda_graphs refused float64", partial(_refused, session))
    check("all five_dimensions float64", partial(_equal, device, FAST, f"student.arch={_NETWORKS}:Deep"))
    check("all micro_batch float64", partial(_equal, device, FAST, "engine.micro_batch=3"))
    for name, fast_paths in EAGER.items():
        check(f"{name} float32", partial(_near, device, fast_paths, FLOAT32))
    check("bfloat16", partial(_near, device, replace(FAST, autocast=torch.bfloat16), BFLOAT16))
    check("supervised cuda_graphs", partial(_supervised_recorded, session))
    inverting.run(session)
    for name, graphs in (("eager", False), ("cuda_graphs", True)):
        check(f"no_wait {name}", partial(_zero_shot_waits, session, graphs))
        check(f"no_wait supervised {name}", partial(_supervised_waits, session, graphs))


_KEEP = "transfer.generator_step_statistics=keep"
_NETWORKS = "benchmarks.on_device.networks"


def _task(device: torch.device, fast_paths: FastPaths, *overrides: str) -> TransferTraining:
    """In the default type, with a teacher whose statistics are those of its activations."""
    config = load_config(None, [*_TINY, *overrides])
    torch.manual_seed(0)
    teacher = settled(new_network(config, "teacher", SHAPE, CLASSES), SHAPE).requires_grad_(False).to(device)
    student = new_network(config, "student", SHAPE, CLASSES)
    return TransferTraining(config, teacher, student, SHAPE, World(device), fast_paths=fast_paths)


def _iterate(task: TransferTraining, start: int, end: int) -> State:
    """Metrics of the last iteration."""
    metrics: Metrics = {}
    for iteration in range(start, end):
        seed_layers(task._config.seed, task._world, iteration)
        metrics = task._step(Doubles(task.noise(iteration)))
    return {f"last {name}": value.clone() for name, value in metrics.items()}


def _state(task: TransferTraining) -> State:
    return {
        f"{name}.{key}": value.detach().clone()
        for name, engine in task.engines.items()
        for key, value in engine.raw.state_dict().items()
    }


@cache
def _trained(device: torch.device, fast_paths: FastPaths, iterations: int, *overrides: str) -> State:
    with arithmetic(torch.float64):
        task = _task(device, fast_paths, *overrides)
        return _iterate(task, 0, iterations) | _state(task)


def _equal(device: torch.device, fast_paths: FastPaths, *overrides: str) -> Entry:
    return compared(
        _trained(device, fast_paths, ITERATIONS, *overrides), _trained(device, PLAIN, ITERATIONS, *overrides), FLOAT64
    )


def _compiled(session: Session, *overrides: str) -> Entry:
    if not session.is_cuda:
        raise Skipped("takes minutes on CPU; tests/speed does it")
    fresh_compiler()
    return _equal(session.device, replace(FAST, compile=True), *overrides)


def _recorded(session: Session, *overrides: str) -> Entry:
    """Against the plain path, unrecorded."""
    need_cuda(session)
    recorded = _trained(session.device, replace(FAST, cuda_graphs=True), RECORDED_ITERATIONS, *overrides)
    return compared(recorded, _trained(session.device, PLAIN, RECORDED_ITERATIONS, *overrides), RECORDED)


def _refused(session: Session) -> Entry:
    """A student that cannot be recorded: after the attempt it draws and learns as if there had been none."""
    need_cuda(session)
    waits = (f"student.arch={_NETWORKS}:Dropping", "student.options.waits=true")
    with arithmetic(torch.float64):
        task = _task(session.device, replace(FAST, cuda_graphs=True), *waits)
        state = _iterate(task, 0, RECORDED_ITERATIONS) | _state(task)
        assert "cuda graphs" not in task.speed, "it was recorded"
    return compared(state, _trained(session.device, PLAIN, RECORDED_ITERATIONS, *waits), RECORDED)


def _resumed(session: Session) -> Entry:
    """A recorded run that another task takes over in the middle, with an evaluation between replays."""
    need_cuda(session)
    half, fast_paths = RECORDED_ITERATIONS // 2, replace(FAST, cuda_graphs=True)
    with arithmetic(torch.float64):
        first, second = _task(session.device, fast_paths), _task(session.device, fast_paths)
        _iterate(first, 0, half)
        with first.trained() as student:
            student.eval()(torch.randn(4, *SHAPE, device=session.device))
            student.train()
        for name, engine in second.engines.items():
            engine.load_state_dict(first.engines[name].state_dict())
        state = _iterate(second, half, RECORDED_ITERATIONS) | _state(second)
    return compared(state, _trained(session.device, PLAIN, RECORDED_ITERATIONS), RECORDED)


def _near(device: torch.device, fast_paths: FastPaths, tolerance: float) -> Entry:
    with arithmetic(torch.float32):
        once = ("transfer.student_steps=1", "transfer.generator_steps=1")
        got, expected = (_task(device, each, *once).step(0) for each in (fast_paths, PLAIN))
        names = ("generator_loss", "kl", "teacher_confidence")
        return compared({n: got[n] for n in names}, {n: expected[n] for n in names}, tolerance)


def _supervised(*overrides: str) -> tuple[Config, ImageDataset]:
    images = torch.randint(256, (64, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = Split(images, torch.arange(64) % CLASSES)
    statistics = ((0.5,) * SHAPE.channels, (0.25,) * SHAPE.channels)
    dataset = ImageDataset("random", SHAPE, CLASSES, lambda _: split, statistics, "crop_flip")
    return load_config(None, [*_TINY, *overrides]), dataset


def _supervised_recorded(session: Session) -> Entry:
    """In float32, as the images are; both take the same kernels."""
    need_cuda(session)
    states = []
    with arithmetic(torch.float32):
        for graphs in ("true", "false"):
            config, dataset = _supervised(f"speed.cuda_graphs={graphs}", "supervised.learning_rate=0.01")
            task = _pretraining(config, dataset, World(session.device))
            for iteration in range(RECORDED_ITERATIONS):
                metrics = task.step(iteration)
            states.append({name: value.clone() for name, value in metrics.items()})
    return compared(states[0], states[1], 1e-2)


def _zero_shot_waits(session: Session, graphs: bool) -> Entry:
    need_cuda(session)
    task = _task(session.device, replace(FAST, cuda_graphs=graphs))
    return _unwaited(task.step)


def _supervised_waits(session: Session, graphs: bool) -> Entry:
    need_cuda(session)
    config, dataset = _supervised(f"speed.cuda_graphs={str(graphs).lower()}")
    return _unwaited(_pretraining(config, dataset, World(session.device)).step)


def _pretraining(config: Config, dataset: ImageDataset, world: World) -> Training:
    inputs = Inputs(dataset.image_shape, dataset.num_classes, dataset.statistics, "data.name", dataset)
    stage = stages("pretrain", config)[-1]
    return pretrain.start(Context(stage, stage.directory, world, lambda: inputs))


def _unwaited(step: object) -> Entry:
    """Steps in which waiting for the device is an error, after the first ones; raises where one waits."""
    assert callable(step)
    for iteration in range(6):
        step(iteration)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for iteration in range(6, 12):
            step(iteration)
    except RuntimeError as error:
        here = [
            f"{f.filename}:{f.lineno}" for f in traceback.extract_tb(error.__traceback__) if "zskt_dist" in f.filename
        ]
        raise AssertionError(f"waits at {here[-1] if here else '?'}: {error}") from error
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return {"iterations": 6}
