"""Configuration: a frozen, strict schema, read from YAML and `dotted.key=value` overrides.

This package imports pydantic and PyYAML and nothing heavier: no torch, ray, mlflow or deepspeed.
"""

from zskt_dist.config.graph import load_graph
from zskt_dist.config.keys import differing_keys
from zskt_dist.config.load import (
    config_of,
    config_of_yaml,
    dump_value,
    dump_yaml,
    load_config,
    parse_config,
    read_config,
    with_overrides,
)
from zskt_dist.config.schema import Config, flatten

__all__ = [
    "Config",
    "config_of",
    "config_of_yaml",
    "differing_keys",
    "dump_value",
    "dump_yaml",
    "flatten",
    "load_config",
    "load_graph",
    "parse_config",
    "read_config",
    "with_overrides",
]
