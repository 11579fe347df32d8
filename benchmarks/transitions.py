"""Transition curves batched over images and targets, against one image and one target at a time.

The plain loop is Algorithm 2 as the authors run it: batch 1, parameters with gradients. Both are measured
in turns in the same process; the plain one on `--sample` of the images in each repetition, scaled up.
"""

import copy
import itertools
from collections.abc import Sequence
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.measure import alternate, arguments, ratio, synchronise, table, write
from zskt_dist.algorithms.transitions import Curves, transition_curves
from zskt_dist.models import ImageShape, build_network
from zskt_dist.speed import fold_batch_norm

SHAPE = ImageShape(3, 32, 32)
CLASSES = 10


def plain(a: nn.Module, b: nn.Module, image: Tensor, target: int, steps: int) -> list[tuple[float, float]]:
    """p_j of A and B for one image and one target; gradients of all parameters are computed and thrown away."""
    x, curve = image[None].clone(), []
    for _ in range(steps):
        x = x.detach().requires_grad_(True)
        y_a, y_b = a(x), b(x)
        curve.append((torch.softmax(y_a, 1)[0, target].item(), torch.softmax(y_b, 1)[0, target].item()))
        a.zero_grad()
        functional.cross_entropy(y_a, torch.tensor([target], device=x.device)).backward()
        assert x.grad is not None
        x = x - x.grad
    return curve


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__, repetitions=3)
    parser.add_argument("--pair", nargs=2, default=["wrn-16-2", "wrn-16-1"], metavar=("TEACHER", "STUDENT"))
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--steps", type=int, default=20, help="K")
    parser.add_argument("--sample", type=int, default=4, help="images of the plain loop per repetition")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    answer = measure(options.pair, options.images, options.steps, options.sample, options.repetitions)
    print(f"MTE of {options.images} images, K = {options.steps}, {' → '.join(options.pair)}\n")
    rows = [
        ("one image and target at a time", f"{answer['batch1_seconds']:.1f} s"),
        ("batched, a thread for each core", f"{answer['batched_seconds']:.1f} s"),
        ("times faster", f"{answer['ratio']:.2f}"),
        ("largest difference of curves", f"{answer['max_difference']:.1e}"),
    ]
    print(table(("", "median"), rows))
    write(answer, options.json)


def measure(
    pair: Sequence[str],
    images: int,
    steps: int,
    sample: int,
    repetitions: int,
    *,
    device: torch.device | None = None,
    rows: int = 128,
) -> dict[str, Any]:
    """Both ways in turns; `rows` as in `transition_curves`."""
    device = device or torch.device("cpu")
    torch.manual_seed(0)
    b, a = (_network(arch).to(device) for arch in pair)  # the student is stepped on
    x = torch.randn(images, *SHAPE).to(device)
    origin = a(x).argmax(dim=1).detach()
    asked = fold_batch_norm(_frozen(a))[0], fold_batch_norm(_frozen(b))[0]  # as `evaluate` does
    turns = itertools.count()  # other images in each repetition
    curves: dict[tuple[int, int], list[tuple[float, float]]] = {}
    batched: list[Curves] = []

    def one_at_a_time() -> None:
        turn = next(turns)
        for image in ((turn * sample + i) % images for i in range(sample)):
            for j in range(CLASSES):
                if j != origin[image]:
                    curves[image, j] = plain(a, b, x[image], j, steps)

    def together() -> None:
        batched[:] = [transition_curves(*asked, x, origin, num_classes=CLASSES, steps=steps, rows=rows)]
        synchronise()

    times = alternate({"batch1": one_at_a_time, "batched": together}, repetitions, warm_up=0)
    times["batch1"] = [each * images / sample for each in times["batch1"]]
    return {
        "pair": list(pair),
        "images": images,
        "steps": steps,
        "rows": rows,
        "repetitions": repetitions,
        "batch1_images_measured": sample,
        "batch1_seconds": median(times["batch1"]),
        "batched_seconds": median(times["batched"]),
        "ratio": ratio(times, "batch1", "batched"),
        "max_difference": max(_difference(batched[0], image, j, curve) for (image, j), curve in curves.items()),
    }


def _difference(batched: Curves, image: int, target: int, curve: list[tuple[float, float]]) -> float:
    """Largest, between both ways to compute one image's curves to one target."""
    place = batched.targets[image].tolist().index(target)
    got = torch.stack([batched.p_a[image, place], batched.p_b[image, place]], dim=1)
    return (got.cpu() - torch.tensor(curve)).abs().max().item()


def _network(arch: str) -> nn.Module:
    """Untrained, with running statistics that fit its activations, so that curves do move."""
    network = build_network(arch, SHAPE, CLASSES)
    with torch.no_grad():
        for _ in range(30):
            network(torch.randn(64, *SHAPE))
    return network.eval()


def _frozen(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).requires_grad_(False)


if __name__ == "__main__":
    main()
