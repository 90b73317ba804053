"""A plan as a document that can be stored and compared: plain JSON values, defaults included, nothing secret.

Two plans that do the same have the same document, whatever their files look like; secrets are not part of it, so a
changed password changes nothing. The order of tables, columns and computed fields is, since outcomes depend on it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel, SecretStr

from forcelift.plan.models import Plan
from forcelift.plan.urls import MASK, masked_url

Document = dict[str, Any]

# Maps whose order counts: the first reason of a row is the first in this order.
_ORDERED = ("fields", "constants", "computed")
_NAME_KEYS = ("table", "name")
_SHOWN_MAX = 80


def plan_document(plan: Plan) -> Document:
    """The whole plan as JSON values. Secrets are `***`, also inside URLs; relative paths stay as they are written."""
    document = _plain(plan, "")
    assert isinstance(document, dict)
    return document


def document_text(document: Document) -> str:
    """The document as canonical JSON, in the order of the plan."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def document_sha256(document: Document) -> str:
    """The sha256 of the canonical JSON, in hexadecimal digits."""
    return hashlib.sha256(document_text(document).encode("utf-8")).hexdigest()


def plan_diff(old: Plan | Mapping[str, Any], new: Plan | Mapping[str, Any]) -> list[str]:
    """What changed between two plans, one line each, such as `tables.T.fields.NAME.too_long: reject -> truncate`.

    Args:
        old: A plan, or the document of one as it was stored, perhaps by an earlier version of the program: a key that
            it lacks and that has its default in `new` is no change.
        new: The plan of now, or its document.
    Returns:
        An empty list if both plans do the same. Secrets never appear.
    """
    before = plan_document(old) if isinstance(old, Plan) else old
    after = plan_document(new) if isinstance(new, Plan) else new
    return list(_changes(before, after, ""))


def _plain(value: Any, key: str) -> Any:
    if isinstance(value, BaseModel):
        return {name: _plain(getattr(value, name), name) for name in type(value).model_fields}
    if isinstance(value, SecretStr):
        secret = value.get_secret_value()
        return masked_url(secret) if key == "url" and "${" not in secret else MASK
    if isinstance(value, Mapping):
        # The order of a value map means nothing.
        keys = sorted(value) if key == "values" else list(value)
        # Inside `notify` every secret is masked as a whole, also a URL: web hooks keep theirs in the path.
        return {
            str(name): MASK if isinstance(value[name], SecretStr) else _plain(value[name], str(name)) for name in keys
        }
    if isinstance(value, (list, tuple)):
        return [MASK if isinstance(item, SecretStr) else _plain(item, "") for item in value]
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


_ABSENT = object()


def _changes(old: Any, new: Any, path: str) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        yield from _map_changes(old, new, path)
    elif _is_list(old) and _is_list(new) and (name := _name_key(old, new)) is not None:
        yield from _map_changes(
            {item[name]: item for item in old}, {item[name]: item for item in new}, path, ordered=True
        )
    elif _differs(old, new):
        yield f"{path}: {_shown(old)} -> {_shown(new)}"


def _map_changes(old: Mapping[str, Any], new: Mapping[str, Any], path: str, *, ordered: bool = False) -> Iterator[str]:
    for key in [*old, *(key for key in new if key not in old)]:
        inner = f"{path}.{key}" if path else str(key)
        before, after = old.get(key, _ABSENT), new.get(key, _ABSENT)
        if after is _ABSENT:
            yield f"{inner}: {_shown(before)} -> (not there)"
        elif before is _ABSENT:
            if not _is_default(inner, after):
                yield f"{inner}: (not there) -> {_shown(after)}"
        else:
            yield from _changes(before, after, inner)
    if ordered or path.rpartition(".")[2] in _ORDERED:
        both = [key for key in old if key in new]
        if both != [key for key in new if key in old]:
            yield f"{path}: the order changed"


def _is_default(path: str, value: Any) -> bool:
    """True for a key of the models, unknown to the older document, that has its default."""
    key = path.rpartition(".")[2]
    defaults = _model_defaults()
    return key in defaults and bool(value == defaults[key])


def _differs(old: object, new: object) -> bool:
    if isinstance(old, bool) or isinstance(new, bool):
        return old is not new
    return old != new


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _name_key(old: Sequence[Any], new: Sequence[Any]) -> str | None:
    """The key that names the items of both lists, each once: `table` for tables, `name` for checks."""
    items = [*old, *new]
    for key in _NAME_KEYS:
        has_names = bool(items) and all(isinstance(item, Mapping) and isinstance(item.get(key), str) for item in items)
        if has_names and all(len({item[key] for item in side}) == len(side) for side in (old, new)):
            return key
    return None


def _shown(value: Any) -> str:
    if isinstance(value, str):
        text = (
            value if value and value.strip() == value and value.isprintable() else json.dumps(value, ensure_ascii=False)
        )
    elif value is None or isinstance(value, (bool, int, float)):
        text = json.dumps(value)
    elif isinstance(value, Mapping) and isinstance(value.get("field"), str):
        text = value["field"]
    elif isinstance(value, Mapping) and isinstance(value.get("object"), str):
        text = value["object"]
    else:
        text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_MAX else f"{text[: _SHOWN_MAX - 3]}..."


@cache  # when plans are compared, and not before: most commands compare none
def _model_defaults() -> dict[str, Any]:
    """Defaults of all models by key, as the document holds them; a key with two defaults is left out."""
    found: dict[str, Any] = {}
    doubtful: set[str] = set()

    def collect(model: type[BaseModel]) -> None:
        for name, info in model.model_fields.items():
            if not info.is_required():
                default = _plain(info.default, name)
                if name in found and found[name] != default:
                    doubtful.add(name)
                found[name] = default

    for model in _models():
        collect(model)
    return {name: default for name, default in found.items() if name not in doubtful}


def _models() -> list[type[BaseModel]]:
    from forcelift.plan import models

    return [one for one in vars(models).values() if isinstance(one, type) and issubclass(one, models.Strict)]
