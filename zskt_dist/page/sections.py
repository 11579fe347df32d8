"""The sections of a page, in order; each shows what was measured and nothing else."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from zskt_dist.errors import one_line
from zskt_dist.figures import plots
from zskt_dist.page import pictures
from zskt_dist.page.confusion import confusion_parts
from zskt_dist.page.facts import Facts
from zskt_dist.page.parts import Interval, Link, Links, Part, Picture, Pictures, Section, Text, table
from zskt_dist.page.provenance import provenance, settings
from zskt_dist.page.texts import amount, number, percent, spread

log = logging.getLogger(__name__)

_COMMANDS = {
    "train": "transfer without data",
    "pretrain": "supervised training",
    "distill": "distillation with labelled images",
    "finetune": "finetuning with a few labelled images",
}
_METHODS = {"belief_matching": "belief matching", "inversion": "inversion of the teacher"}
_SOURCES = {
    "yardstick": "yardstick",
    "held_out": "the generator's images",
    "noise": "normal noise",
    "uniform_noise": "uniform noise",
}


def subtitle(facts: Facts) -> str:
    """What was run, in a line."""
    result = facts.result
    what = _METHODS.get(str(result.get("method")), "")
    what = f"{_COMMANDS.get(result['command'], result['command'])}{f' by {what}' if what else ''}"
    data = "no data set" if result.get("dataset") == "none" else f"data set {result.get('dataset')}"
    seeds = f"{len(result['seeds'])} seeds" if "seeds" in result else f"seed {result.get('seed')}"
    return f"{what} · {data} · {seeds}"


def sections(facts: Facts) -> Iterator[Section]:
    """Those that have something to show; what cannot be read of somebody else's files is left out with a warning."""
    builders: tuple[tuple[str, Callable[[Facts], Sequence[Part]]], ...] = (
        (" and ".join(role for role in ("teacher", "student") if facts.result[role]).capitalize(), networks),
        ("Agreement with the teacher, without labels", yardstick),
        ("Seeds", seeds),
        ("Training", training),
        ("Pseudo-images over training", pseudo_images),
        ("Estimates without labels", estimates),
        *(
            (f"On the test images of {each.dataset}", partial(measured, place))
            for place, each in enumerate(_all(facts))
        ),
        ("Exported files", exports),
        ("Pseudo-data", pseudo_data),
        ("Settings", settings),
        ("Where it comes from", provenance),
    )
    for title, build in builders:
        try:
            parts = list(build(facts))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            log.warning("the page of %s lacks %r: %s", facts.directory.path, title, one_line(error))
            continue
        if parts:
            yield Section(title, parts)


def _all(facts: Facts) -> list[Any]:
    try:
        return facts.measured
    except (LookupError, TypeError, ValueError, AttributeError, OSError) as error:
        log.warning("the page of %s lacks its evaluations: %s", facts.directory.path, one_line(error))
        return []


def networks(facts: Facts) -> list[Part]:
    """Teacher beside student: sizes, work, latency and scores, each where it is known."""
    teacher, student = facts.result["teacher"] or {}, facts.result["student"] or {}
    params = _count(student.get("params"))
    if student and teacher.get("params"):
        params += f" ({percent(student['params'] / teacher['params'], 1)})"
    rows = [
        ("architecture", teacher.get("arch", ""), student.get("arch", "")),
        ("parameters", _count(teacher.get("params")), params),
        ("multiply-adds for an image", _count(teacher.get("multiply_adds")), _count(student.get("multiply_adds"))),
        *_exported(facts),
        *(row for found in _all(facts) for row in _scores(facts, found.dataset, found.answer)),
    ]
    header = ("", "teacher", "student") if student else ("", "teacher", "")
    parts = table(header, [row for row in rows if row[1] or row[2]])
    if seed := facts.result.get("seed_images"):
        parts.append(Text(f"The student also learnt from {seed['images']:,} images that were given: not data-free."))
    return parts


def _exported(facts: Facts) -> Iterator[tuple[str, str, str]]:
    """Bytes of the weights and latency, which `export` has measured."""
    found: dict[str, dict[str, Any]] = {}
    threads = ""
    for record in reversed(facts.exports):
        found |= record["networks"]
        threads = f"CPU, {record['threads']} thread{'s' * (record['threads'] != 1)}"
    teacher, student = found.get("teacher", {}), found.get("student", {})
    size_of_teacher, size_of_student = (amount(each["bytes"]) if each else "" for each in (teacher, student))
    yield "weights", size_of_teacher, size_of_student
    for size in dict.fromkeys((*teacher.get("latency_ms", {}), *student.get("latency_ms", {}))):
        times = (each.get("latency_ms", {}).get(size) for each in (teacher, student))
        images = "an image" if size == "1" else f"{size} images"
        of_teacher, of_student = ("" if time is None else f"{time:.2f}" for time in times)
        yield f"ms for {images} ({threads})", of_teacher, of_student


def _scores(facts: Facts, dataset: str, answer: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What was measured with labels; of several seeds with the deviation."""
    teacher, student = facts.result["teacher"] or {}, facts.result["student"] or {}
    yield (
        f"accuracy, {dataset}",
        spread(answer.get("teacher_accuracy"), teacher.get("accuracy_std")),
        spread(answer.get("accuracy"), student.get("accuracy_last_std")) if student else "",
    )
    yield f"agreement, {dataset}", "", spread(answer.get("agreement"), student.get("agreement_std"))
    errors = {who: values["ece"] for who, values in answer.get("calibration", {}).items()}
    yield f"calibration error, {dataset}", number(errors.get("teacher")), number(errors.get("student"))
    yield f"mean transition error, {dataset}", "", number((answer.get("mte") or {}).get("value"))


def yardstick(facts: Facts) -> list[Part]:
    """The agreement on the yardstick on a scale, with its interval."""
    found = facts.result.get("yardstick")
    if not found:
        return []
    value, low, high = (float(found[name]) for name in ("agreement", "low", "high"))
    shown = spread(value, found.get("agreement_std"))
    text = f"{shown} of {found['images']:,.0f} images, 95 % interval {percent(low, 1)} to {percent(high, 1)}"
    return [
        Interval(value, low, high, text),
        Text(
            "The yardstick is a fixed set of images made from the teacher alone. On real images the two mostly agree "
            "more often; how often they are right it does not say. Students of one teacher can be compared by it."
        ),
    ]


def seeds(facts: Facts) -> list[Part]:
    """A row and a link for each seed."""
    rows, links = [], []
    for seed, name in zip(facts.result.get("seeds", []), facts.result.get("runs", []), strict=False):
        run = facts.directory.sibling(name)
        result = run.finished() or {}
        student, agreed = result.get("student") or {}, result.get("yardstick") or {}
        teacher = {} if student else result.get("teacher") or {}
        accuracy = student.get("accuracy_last", teacher.get("accuracy"))
        numbers = (accuracy, student.get("agreement"), agreed.get("agreement"))
        rows.append((str(seed), *("" if each is None else percent(each) for each in numbers)))
        links.append(Link(f"../{run.path.name}/{run.page.name}", f"seed {seed}: {run.path.name}"))
    found = table(("seed", "accuracy", "agreement", "agreement on the yardstick"), rows)
    return [*found, Links(links)] if links else []


def training(facts: Facts) -> list[Part]:
    """Curves, and how long it took."""
    result = facts.result
    found = list(pictures.curves(facts.history))
    curves: list[Part] = [Pictures(found)] if found else []
    if not {"world_size", "device"} <= result.keys():  # of an earlier version
        return curves
    resumed = f", continued from iteration {result['resumed_from']:,}" if result.get("resumed_from") else ""
    workers = f"{result['world_size']} worker{'s' * (result['world_size'] != 1)}"
    took = f"{result['iterations']:,} iterations in {result['seconds']:,.0f} s by {workers} on {result['device']}"
    several = f" ({len(result['seeds'])} runs)" if "seeds" in result else ""
    return [*curves, Text(f"{took}{several}{resumed}.")]


def pseudo_images(facts: Facts) -> list[Part]:
    """What the student has learnt from, from the first evaluation to the last."""
    found = list(pictures.pseudo_images(facts.grids))
    return [Pictures(found, small=True)] if found else []


def estimates(facts: Facts) -> list[Part]:
    """Agreement on each kind of images that are not real, and how sure the networks are there."""
    several = "seeds" in facts.result
    rows = []
    for name, entry in ((facts.result.get("estimates") or {}).get("sources") or {}).items():
        share = spread(entry["agreement"], entry.get("agreement_std"))
        if not several:
            share += f" ({percent(entry['agreement_low'], 1)} to {percent(entry['agreement_high'], 1)})"
        others = (percent(entry["chance_agreement"], 1), f"{entry['kl_50']:.3g}", f"{entry['teacher_classes']:g}")
        rows.append((_SOURCES.get(name, name), f"{entry['images']:,.0f}", share, *others))
    within = "± standard deviation" if several else "95 % interval"
    header = ("images", "number", f"agreement ({within})", "by chance", "median KL, nats", "classes predicted")
    found = table(header, rows)
    if found:
        found.append(
            Text(
                "Estimates, not measurements: no real image and no label went into them. They say how alike student "
                "and teacher are on these images, not how right."
            )
        )
    drawn = [] if several else list(_confidences(facts.estimates.get("sources", {})))
    return [*found, *([Pictures(drawn)] if drawn else [])]


def _confidences(sources: dict[str, Any]) -> Iterator[Picture]:
    """Of the generator's snapshots the last alone."""
    snapshots = [name for name, entry in sources.items() if entry["iteration"] is not None]
    for name in sorted(sources, key=lambda name: name != "yardstick"):
        if name not in snapshots[:-1]:
            text = "how sure teacher and student are of their classes"
            yield pictures.figure(partial(plots.confidence, name, sources[name]), text)


def measured(place: int, facts: Facts) -> list[Part]:
    """Confusion, calibration, transition curves and noise of one data set, each where it was measured."""
    found = facts.measured[place]
    answer, drawn = found.answer, []
    if answer.get("calibration"):
        make = partial(plots.calibration, answer["calibration"])
        drawn.append(_captioned(make, "how often the networks are right, by their confidence"))
    if answer.get("mean_curves"):
        make = partial(plots.transitions, answer["mean_curves"], answer["mte"])
        drawn.append(_captioned(make, "probability of the target class over adversarial steps"))
    if answer.get("noise"):
        make = partial(plots.noise, answer["noise"])
        drawn.append(_captioned(make, "how often each class is predicted for noise"))
    confusion = facts.confusion(found)
    return [*(confusion_parts(confusion) if confusion else []), *([Pictures(drawn)] if drawn else [])]


def _captioned(make: Callable[[], Any], text: str) -> Picture:
    return pictures.figure(make, text, text.capitalize())


def exports(facts: Facts) -> list[Part]:
    """Files with sizes, differences and latencies, and links to them."""
    found: list[Part] = []
    for record in facts.exports:
        rows, folder = [], record["folder"]
        for entry in record["files"].values():
            times = entry.get("latency_ms", {})
            rows.append(
                (
                    f"{folder}/{entry['file']}",
                    amount(entry["bytes"]),
                    f"{entry['difference']:.1e}",
                    *(f"{times[size]:.2f}" if size in times else "" for size in ("1", "32")),
                )
            )
        header = ("file", "size", "largest difference from PyTorch", "ms, 1 image", "ms, 32 images")
        found += table(header, rows)
        for images, share in record["files"].get("int8", {}).get("agreement", {}).items():
            found.append(Text(f"int8 agrees with PyTorch on {percent(share)} of {images.replace('_', '-')}."))
        if model := record.get("mlflow"):
            found.append(Text(f"Registered in MLflow as models:/{model['name']}/{model['version']}."))
        if (facts.directory.path / folder / "README.md").exists():
            found.append(Links([Link(f"{folder}/README.md", "model card")]))
    return found


def pseudo_data(facts: Facts) -> list[Part]:
    """How many images `synthesize` has made into the run's folder."""
    if (about := facts.pseudo_data) is None:
        return []
    of = "rounds of inversion" if about.get("method") == "inversion" else "moments of the generator"
    text = f"{about['images']:,} images with the teacher's answers, from {len(about['generators'])} {of}."
    return [Text(text), Links([Link("pseudo_data/README.md", "pseudo_data")])]


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"
