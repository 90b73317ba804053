"""The JSON Schema of the plan file, for editors and for those who make plans by program.

It tells form only: what hangs together (parents, keys, fields filled twice) is `load_plan`'s to check.
"""

from __future__ import annotations

import json
from typing import Any

from forcelift.plan.models import AuditSettings, Plan
from forcelift.plan.thresholds import THRESHOLDS


def plan_json_schema() -> dict[str, Any]:
    """The schema (JSON Schema 2020-12); every key has a title and a description."""
    schema = Plan.model_json_schema(mode="validation")
    audit_url = AuditSettings().url.get_secret_value()
    # Pydantic masks the default of a secret type; this one is no secret.
    schema["$defs"]["AuditSettings"]["properties"]["url"]["default"] = audit_url
    schema["properties"]["audit"]["default"] = {"url": audit_url}
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


def schema_text() -> str:
    """The schema as it is published, with a line end."""
    return json.dumps(plan_json_schema(), indent=2, ensure_ascii=False) + "\n"
