"""Results of commands against the schema that the package ships."""

import json
from importlib.resources import files
from typing import Any

import jsonschema

SCHEMA = json.loads(files("zskt_dist.runs").joinpath("result.schema.json").read_text(encoding="utf-8"))
_KINDS = {"sweep": "SweepResult", "toy": "ToyResult", "synthesize": "PseudoDataResult"}


def check_result(result: dict[str, Any]) -> None:
    """Raises ValidationError where a field is missing, unknown or of another type."""
    kind = _KINDS.get(result["command"], "RunResult")
    jsonschema.validate(result, {"$ref": f"#/$defs/{kind}", "$defs": SCHEMA["$defs"]})
    jsonschema.validate(result, SCHEMA)
