"""Names of metrics in MLflow, whose pages group charts by what stands before the slash.

Run directories and `result.json` keep the plain names; this is the one place that knows both (docs/running.md).
"""

import re

_GROUPS = (
    # What it was measured on opens the name already: its first underscore becomes the slash.
    (r"(yardstick|label_free|estimate|train)_(.+)", r"\1/\2"),
    (r"(accuracy|agreement|teacher_accuracy|mte|ece_.+)", r"test/\1"),
    (r"(held_out_.+|noise_agreement)", r"label_free/\1"),
    (r"(.*gradient_norm)", r"gradients/\1"),
    (r"(.+_learning_rate)", r"learning_rates/\1"),
    (r"(.+_confidence|(?:teacher|student)_class_entropy|label_hits|synthesis_agreement)", r"pseudo_images/\1"),
    # No group may have the name of a metric, such as `loss`: in a store of files one is a folder, the other a file.
    (r"(loss|.+_loss|kl|attention|cross_entropy|statistics_gap|generator_.+)", r"losses/\1"),
    (r"(iterations_per_second)", r"speed/\1"),
    (r"(score|best_.+|trials|failed)", r"sweep/\1"),
)
_DEVIATION = "_std"


def grouped(name: str) -> str:
    """`test/accuracy` for `accuracy`, `test/accuracy_std` for its deviation over seeds; another name stays as it is."""
    plain = name.removesuffix(_DEVIATION)
    for pattern, group in _GROUPS:
        if match := re.fullmatch(pattern, plain):
            return match.expand(group) + name[len(plain) :]
    return name
