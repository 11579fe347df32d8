"""Names of weights as Hugging Face's transformers save them.

Their networks may have other names in memory than in files; `from_pretrained` translates, `load_state_dict` does not.
"""

import sys
import warnings

from torch import nn

from zskt_dist.networks.state_dicts import StateDict


def translated(network: nn.Module, weights: StateDict) -> StateDict | None:
    """A file's weights by the names of a network of transformers; None for others, and where it cannot read them.

    Names that it does not know stay as they are; those that it would draw at random are missing.
    """
    kind = getattr(sys.modules.get("transformers"), "PreTrainedModel", None)
    if kind is None or not isinstance(network, kind):
        return None
    try:
        with warnings.catch_warnings(action="ignore"):
            made, about = type(network).from_pretrained(
                None, config=network.config, state_dict=dict(weights), output_loading_info=True
            )
    except Exception:  # foreign code may raise anything; what torch says of the file is shown then
        return None
    drawn = set(about["missing_keys"]) | {name for name, *_ in about["mismatched_keys"]}
    names = {name: tensor for name, tensor in made.state_dict().items() if name not in drawn}
    return StateDict.of(names | {name: weights[name] for name in about["unexpected_keys"] if name in weights})
