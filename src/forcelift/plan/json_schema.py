"""The JSON Schema of the plan file, for editors and for those who make plans by program.

It tells form only: what hangs together (parents, keys, fields filled twice) is `load_plan`'s to check.
"""

from __future__ import annotations

import json
from typing import Any, get_args

from forcelift.plan.expressions import DEPTH_MAX, EXPRESSIONS, SCALE_MAX, LetterForm
from forcelift.plan.models import AuditSettings, Plan
from forcelift.plan.thresholds import THRESHOLDS


def plan_json_schema() -> dict[str, Any]:
    """The schema (JSON Schema 2020-12); every key has a title and a description."""
    schema = Plan.model_json_schema(mode="validation")
    audit_url = AuditSettings().url.get_secret_value()
    # Pydantic masks the default of a secret type; this one is no secret.
    schema["$defs"]["AuditSettings"]["properties"]["url"]["default"] = audit_url
    schema["properties"]["audit"]["default"] = {"url": audit_url}
    schema["$defs"] |= expression_schemas()
    schema["$defs"]["TablePlan"]["properties"]["computed"]["additionalProperties"] = {"$ref": "#/$defs/Expression"}
    schema["properties"]["thresholds"] |= {
        "properties": {
            name: {
                "type": "number",
                "minimum": 0,
                "default": one.default,
                "title": name.replace("_", " ").capitalize(),
                "description": f"{one.meaning.capitalize()} this, in {one.unit}.",
            }
            for name, one in THRESHOLDS.items()
        },
        "additionalProperties": False,
    }
    for one in (schema, *schema["$defs"].values()):
        for name, part in one.get("properties", {}).items():
            # Pydantic gives no title to a part that may be null.
            part.setdefault("title", name.replace("_", " ").capitalize())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Forcelift plan file",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def expression_schemas() -> dict[str, Any]:
    """Schemas of computed fields' expressions and of their operands."""
    # Unquoted numbers and words count as texts in the plan, as they do wherever the very text is taken.
    scalar = {"type": ["string", "number", "boolean"]}
    operand = {"$ref": "#/$defs/Operand"}
    otherwise = {"anyOf": [{"type": ["string", "number", "boolean", "null"]}, operand]}
    bodies: dict[str, Any] = {name: {"type": "array", "items": operand, "minItems": 2} for name in EXPRESSIONS}
    bodies["concat"]["minItems"] = 1
    whole = {"type": "integer", "minimum": 1}
    bodies["part"] = {
        "oneOf": [
            _map({"column": operand, "from": whole, "length": whole}, optional="length"),
            _map({"column": operand, "split": {"type": "string", "minLength": 1}, "take": {"type": "integer"}}),
        ]
    }
    bodies["letters"] = _map({"column": operand, "to": {"enum": list(get_args(LetterForm))}})
    bodies["case"] = _map(
        {"column": operand, "when": {"type": "object", "minProperties": 1}, "else": otherwise}, optional="else"
    )
    scale = {"type": "integer", "minimum": 0, "maximum": SCALE_MAX}
    bodies["divide"] = _map({"column": operand, "by": operand, "scale": scale})
    properties = {name: body | {"description": f"Such as `{EXPRESSIONS[name]}`."} for name, body in bodies.items()}
    one = {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": False}
    literals = {
        "column": scalar | {"description": "A column's name."},
        "text": {"type": ["string", "number", "boolean", "null"], "description": "A fixed text."},
        "number": {"type": ["string", "number"], "description": "A plain decimal."},
    }
    return {
        "Expression": one
        | {"description": f"One expression; they nest {DEPTH_MAX} deep at most.", "properties": properties},
        "Literal": one | {"description": "A column, a fixed text or a fixed number.", "properties": literals},
        "Operand": {
            "type": ["string", "number", "boolean", "object"],
            "description": "A column's name, a literal or an expression.",
            "anyOf": [
                {"type": ["string", "number", "boolean"]},
                {"$ref": "#/$defs/Literal"},
                {"$ref": "#/$defs/Expression"},
            ],
        },
    }


def _map(properties: dict[str, Any], *, optional: str | None = None) -> dict[str, Any]:
    needed = [name for name in properties if name != optional]
    return {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}


def schema_text() -> str:
    """The schema as it is published, with a line end."""
    return json.dumps(plan_json_schema(), indent=2, ensure_ascii=False) + "\n"
