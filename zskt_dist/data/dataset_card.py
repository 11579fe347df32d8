"""The card of a folder of pseudo-data, as Hugging Face shows it: README.md with YAML front matter."""

from bisect import bisect
from typing import Any

import yaml

_SIZES = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
"""Bounds of Hugging Face's size categories: 10^3, 10^4, …"""

_CARD = """\
---
{front}---

# Pseudo-images of {teacher}

{images:,} images of {shape} that {makers}, each with the logits of the teacher. They were made by
{method} with zskt_dist {version}: {read}.
{look}Their classes are what the teacher says.

| column | type | what |
|---|---|---|
{image_row}| `pixels` | float16 [{length}] | what a student learns from: {shape}, normalised{bounds} |
| `teacher_logits` | float32 [{classes}] | the teacher's answer to these pixels |
| `label` | class | the teacher's predicted class |
| `source` | int32 | {source} |
| `index` | int64 | number of the image |

Normalised means (pixel - mean) / std of pixels in [0, 1]: mean {mean}, std {std}.
Teacher: {teacher}, file with SHA-256 `{sha256}`. Seed {seed}.

| class | images |
|---|---|
{histogram}

```python
from datasets import load_dataset

images = load_dataset("parquet", data_files="train-*.parquet", split="train").with_format("numpy")
pixels = images[0]["pixels"].reshape({dimensions})
```

```
python -m zskt_dist.train pseudo_data=FOLDER loss.beta=0{learn} student.arch=…
```
"""


_INVERSION = {
    "makers": "have the statistics the teacher remembers of its training images",
    "method": "inversion of the teacher",
    "bounds": ", in the range of images",
    "source": "round in which the image was made",
    "look": "",
    "learn": " method=belief_matching",
}


def _belief_matching(result: dict[str, Any]) -> dict[str, str]:
    paper = "[Micaelli & Storkey, 2019](https://arxiv.org/abs/1905.09768)"
    return {
        "makers": "generators have drawn",
        "method": f"zero-shot knowledge transfer ({paper})",
        "bounds": ", not bounded",
        "source": f"iteration of the generator's snapshot: {', '.join(result['generators'])}",
        "look": "They do not look like what the teacher was trained on. ",
        "learn": "",
    }


def dataset_card(result: dict[str, Any]) -> str:
    """The card of the pseudo-data that `launch.synthesize.describe` describes."""
    images, dimensions = result["images"], result["image_shape"]
    read = "no real image was read"
    if given := result.get("seed_images"):  # absent from shards of earlier versions, as the method
        read = f"the run was given {given['images']:,} images without labels, which are not among these"
    front = {
        "pretty_name": f"Pseudo-images of {result['teacher']['arch']}",
        "task_categories": ["image-classification"],
        "tags": ["knowledge-distillation", *([] if given else ["zero-shot"]), "synthetic"],
        "size_categories": [_size_category(images)],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "train-*.parquet"}]}],
    }
    image_row = "| `image` | PNG | for people: brought back to pixels from 0 to 255, clipped and rounded |\n"
    return _CARD.format(
        front=yaml.safe_dump(front, sort_keys=False),
        teacher=result["teacher"]["arch"],
        sha256=result["teacher"]["sha256"],
        images=images,
        shape="x".join(map(str, dimensions)),
        dimensions=", ".join(map(str, dimensions)),
        length=dimensions[0] * dimensions[1] * dimensions[2],
        classes=result["num_classes"],
        image_row=image_row if dimensions[0] in (1, 3) else "",
        **_INVERSION if result.get("method") == "inversion" else _belief_matching(result),
        read=read,
        version=result["version"],
        mean=result["mean"],
        std=result["std"],
        seed=result["seed"],
        histogram="\n".join(f"| {label} | {count:,} |" for label, count in enumerate(result["classes"])),
    )


def _size_category(images: int) -> str:
    place = bisect([10**power for power in range(3, 3 + len(_SIZES))], images)
    if place in (0, len(_SIZES)):
        return f"n<{_SIZES[0]}" if place == 0 else f"n>{_SIZES[-1]}"
    return f"{_SIZES[place - 1]}<n<{_SIZES[place]}"
