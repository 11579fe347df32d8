"""The belief gap of a configuration: one of ours, or a divergence of the user's own."""

import torch

from zskt_dist.algorithms.losses import OURS, BeliefGap, belief_gap
from zskt_dist.algorithms.own_divergence import OwnDivergence, check_own_divergence, own_gap
from zskt_dist.config import Config
from zskt_dist.errors import ConfigError
from zskt_dist.models import NetworkError, import_callable


def configured_gap(config: Config) -> BeliefGap:
    """The gap between a student's and a teacher's logits that `config.loss` describes.

    Raises:
        ConfigError: the divergence is the user's, and is not there.
    """
    loss = config.loss
    if loss.divergence in OURS:
        return belief_gap(loss.divergence, temperature=loss.temperature, reduction=loss.reduction)
    return own_gap(_own(loss.divergence), loss.temperature)


def check_gap(config: Config, classes: int, device: torch.device | None = None) -> None:
    """Tries a divergence of the user's on random logits; raises ConfigError where nothing can be trained with it."""
    divergence = config.loss.divergence
    if divergence not in OURS:
        try:
            check_own_divergence(_own(divergence), classes, device or torch.device("cpu"))
        except NetworkError as error:
            raise ConfigError("loss.divergence", divergence, str(error)) from None


def describe_gap(config: Config) -> str:
    """In words for people."""
    loss = config.loss
    reduction = loss.reduction if loss.divergence in OURS else "mean over images"
    return f"{loss.divergence} at T = {loss.temperature:g} ({reduction})"


def _own(path: str) -> OwnDivergence:
    try:
        found: OwnDivergence = import_callable(path, "a divergence")
    except NetworkError as error:
        raise ConfigError("loss.divergence", path, str(error)) from None
    return found
