"""Transition curves batched over images and targets, against one image and one target at a time.

The plain loop is Algorithm 2 as the authors run it: batch 1, parameters with gradients. Both are measured
alternately in the same process; the plain one on `--sample` of the images in each repetition, scaled up.
"""

import argparse
import copy
import json
import platform
import time
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from zskt_dist.algorithms.transitions import transition_curves
from zskt_dist.models import ImageShape, build_network

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
        functional.cross_entropy(y_a, torch.tensor([target])).backward()
        assert x.grad is not None
        x = x - x.grad
    return curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", nargs=2, default=["wrn-16-2", "wrn-16-1"], metavar=("TEACHER", "STUDENT"))
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--steps", type=int, default=20, help="K")
    parser.add_argument("--sample", type=int, default=4, help="images of the plain loop per repetition")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    b, a = (_network(arch) for arch in options.pair)  # the student is stepped on
    x = torch.randn(options.images, *SHAPE)
    origin = a(x).argmax(dim=1).detach()
    frozen = [_frozen(network) for network in (a, b)]

    slow, fast, difference = [], [], 0.0
    for repetition in range(options.repetitions):
        sample = [(repetition * options.sample + i) % options.images for i in range(options.sample)]
        started = time.perf_counter()
        curves = {
            (image, j): plain(a, b, x[image], j, options.steps)
            for image in sample
            for j in range(CLASSES)
            if j != origin[image]
        }
        slow.append((time.perf_counter() - started) * options.images / options.sample)
        started = time.perf_counter()
        batched = transition_curves(*frozen, x, origin, num_classes=CLASSES, steps=options.steps)
        fast.append(time.perf_counter() - started)
        for (image, j), curve in curves.items():
            place = batched.targets[image].tolist().index(j)
            got = torch.stack([batched.p_a[image, place], batched.p_b[image, place]], dim=1)
            difference = max(difference, (got - torch.tensor(curve)).abs().max().item())
    answer = {
        "pair": options.pair,
        "images": options.images,
        "steps": options.steps,
        "threads": options.threads,
        "machine": platform.processor() or platform.machine(),
        "repetitions": options.repetitions,
        "batch1_images_measured": options.sample,
        "batch1_seconds": median(slow),
        "batched_seconds": median(fast),
        "ratio": median(one / other for one, other in zip(slow, fast, strict=True)),
        "max_difference": difference,
    }
    table = Table(title=f"MTE of {options.images} images, K = {options.steps}, {' → '.join(options.pair)}")
    for column in ("", "seconds"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row("one image and target at a time", f"{answer['batch1_seconds']:.1f}")
    table.add_row("batched", f"{answer['batched_seconds']:.1f}")
    table.add_row("ratio", f"{answer['ratio']:.2f}")
    table.add_row("largest difference of curves", f"{difference:.1e}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(answer, indent=2) + "\n")


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
