"""Batch norm of a frozen network folded into the convolutions before it."""

from collections.abc import Collection, Iterator

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from zskt_dist.models import sharing_weights


def fold_batch_norm(network: nn.Module, keep: Collection[str] = ()) -> tuple[nn.Module, int]:
    """A copy of a frozen network in eval mode; each batch norm that only follows one convolution is folded into it.

    In eval mode batch norm is a fixed affine map of each channel, so that w' = w * gamma / sqrt(var + eps) and
    b' = (b - mean) * gamma / sqrt(var + eps) + beta give the same output up to rounding. The names of all other modules
    stay, so that they can be tapped.

    Args:
        keep: Names of layers whose own output is read.

    Returns:
        The copy, and the number of folded batch norms; 0 where the network cannot be traced.
    """
    folded = sharing_weights(network).eval()
    pairs = [(convolution, norm) for convolution, norm in _pairs(folded) if not _read_between(convolution, norm, keep)]
    for convolution, norm in pairs:
        joined = fuse_conv_bn_eval(folded.get_submodule(convolution), folded.get_submodule(norm))  # type: ignore[type-var, arg-type]
        folded.set_submodule(convolution, joined)
        folded.set_submodule(norm, nn.Identity())
    return folded, len(pairs)


def _read_between(convolution: str, norm: str, layers: Collection[str]) -> bool:
    """True if one of `layers` ends in the convolution, before its norm."""
    return any(f"{convolution}.".startswith(f"{name}.") and not f"{norm}.".startswith(f"{name}.") for name in layers)


def _pairs(network: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of convolutions and of the batch norms that follow them, each used once and for nothing else."""
    try:
        nodes = list(fx.symbolic_trace(network).graph.nodes)
    except Exception:  # a network that cannot be traced works unfolded
        return
    calls = [node.target for node in nodes if node.op == "call_module"]
    for node in nodes:
        before = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(before, fx.Node) or before.op != "call_module":
            continue
        convolution, norm = network.get_submodule(str(before.target)), network.get_submodule(str(node.target))
        if any(module._forward_hooks or module._forward_pre_hooks for module in (convolution, norm)):
            continue  # hooks may read or make the weights that are about to change, as weight_norm does
        # Exactly these types: a subclass may do more, as timm's batch norms apply an activation.
        if type(convolution) is not nn.Conv2d or type(norm) is not nn.BatchNorm2d or norm.running_var is None:
            continue
        if len(before.users) == 1 and calls.count(before.target) == 1 and calls.count(node.target) == 1:
            yield str(before.target), str(node.target)
