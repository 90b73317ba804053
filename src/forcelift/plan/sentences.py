"""From pydantic's errors to sentences: which place of the plan, what is wrong there, what would be right.

Values are repeated only where a word of a fixed set, a number or a name is wanted, never where a secret may stand.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from forcelift.errors import Problem
from forcelift.plan.markers import Expect, SecretUrl
from forcelift.plan.shape import Path, Shaped, alternatives, is_text, model_keys, nearest, shown


def problems_of(error: ValidationError, shaped: Shaped) -> list[Problem]:
    """One problem for each place that is wrong, in the order of the file.

    Args:
        shaped: The data that was checked, with the types and lines of its places.
    """
    found: dict[Path, Problem] = {}
    for detail in error.errors(include_url=False, include_input=False):
        place, rest = _place(detail["loc"], shaped)
        if detail["type"] == "missing":
            key = str(rest[-1]) if rest else str(detail["loc"][-1])
            found.setdefault((*place, key), shaped.problem("is missing", (*place, key)))
        elif detail["type"] == "too_short" and _value_at(place, shaped.data):
            # Items that are wrong themselves do not count for pydantic: the list is not empty in the file.
            continue
        else:
            found.setdefault(place, _problem(detail, place, rest, shaped))
    return list(found.values())


def expected(annotation: Any) -> str:
    """What a good value of that type looks like, in words."""
    parts: list[str] = []
    for option, marks in alternatives(annotation):
        told = next((mark.text for mark in marks if isinstance(mark, Expect)), None)
        text = told or _expected_one(option, marks)
        if text and text not in parts:
            parts.append(text)
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + f" or {parts[-1]}" if parts else "nothing"


def _expected_one(option: Any, marks: tuple[Any, ...]) -> str:
    if option is type(None):
        return ""
    origin = get_origin(option)
    if origin is Literal:
        return _listed([str(one) for one in get_args(option)])
    if isinstance(option, type) and issubclass(option, Enum):
        return _listed([str(one.value) for one in option])
    if option in (int, float):
        return _number(option, marks)
    if option is bool:
        return "`true` or `false`"
    if option is SecretStr and any(isinstance(mark, SecretUrl) for mark in marks):
        return "a URL"
    if option is SecretStr:
        return "`${ENV}` or `file:PATH`"
    if option is str:
        return "a text"
    return "a list" if origin in (tuple, list) else "a map"


def _number(option: type, marks: tuple[Any, ...]) -> str:
    noun = "a whole number" if option is int else "a number"
    for mark in marks:
        for inner in getattr(mark, "metadata", [mark]):
            if (least := getattr(inner, "ge", None)) is not None:
                return f"{noun} from {least:g}"
            if (bound := getattr(inner, "gt", None)) is not None:
                return f"{noun} above {bound:g}"
    return noun


def _listed(words: list[str]) -> str:
    quoted = [f"`{word}`" for word in words]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + f" or {quoted[-1]}"


def _place(loc: tuple[int | str, ...], shaped: Shaped) -> tuple[Path, tuple[int | str, ...]]:
    """The longest beginning of pydantic's location that is a place of the file, and what is left.

    Pydantic puts names of union members between the keys; they are no places.
    """
    place: Path = ()
    for index, part in enumerate(loc):
        if (*place, part) not in shaped.annotations:
            return place, loc[index:]
        place = (*place, part)
    return place, ()


def _problem(detail: ErrorDetails, place: Path, rest: Path, shaped: Shaped) -> Problem:
    value = _value_at(place, shaped.data)
    annotation = shaped.annotations.get(place)
    if detail["type"] == "value_error":
        return shaped.problem(str(detail["msg"]).removeprefix("Value error, "), place)
    if isinstance(value, str):
        annotation = _short_form(annotation, rest)
    wanted = expected(annotation)
    if not place:
        return shaped.problem(f"a plan is a map of keys and values, not {_kind(value)}", place)
    if value is None:
        return shaped.problem(f"must be {wanted}, and is left empty", place)
    if value in ("", [], {}):
        return shaped.problem(f"must not be empty; it is {wanted}", place)
    if isinstance(value, dict) and _may_be_repeated(annotation):
        return shaped.problem(f"must be {wanted}, not a map with {_keys(value)}", place)
    if isinstance(value, (dict, list)):
        return shaped.problem(f"must be {wanted}, not a {'map' if isinstance(value, dict) else 'list'}", place)
    if not _may_be_repeated(annotation):
        return shaped.problem(f"must be {wanted}", place)
    words = _words(annotation)
    near = nearest(str(value), words) if words else None
    return shaped.problem(
        f"must be {wanted}, not {shown(str(value))}", place, hint=f"did you mean `{near}`?" if near else None
    )


def _short_form(annotation: Any, rest: Path) -> Any:
    """The type of the key that a text stands for, where a text may stand for a whole map."""
    for option, _ in alternatives(annotation):
        if rest and isinstance(option, type) and issubclass(option, BaseModel):
            return model_keys(option).get(str(rest[0]), annotation)
    return annotation


def _kind(value: object) -> str:
    return "a list" if isinstance(value, list) else "a single value"


def _keys(value: dict[str, Any]) -> str:
    keys = [shown(str(key).partition(":")[0]) for key in list(value)[:3]]
    return ", ".join(keys) + (" and more" if len(value) > 3 else "")


def _words(annotation: Any) -> list[str]:
    words: list[str] = []
    for option, _ in alternatives(annotation):
        if get_origin(option) is Literal:
            words += [str(one) for one in get_args(option)]
        elif isinstance(option, type) and issubclass(option, Enum):
            words += [str(one.value) for one in option]
    return words


def _may_be_repeated(annotation: Any) -> bool:
    """True where a word, a number or a text is wanted; a text in the place of a map may be a secret with a typo."""
    options = [option for option, _ in alternatives(annotation)]
    if SecretStr in options:
        return False
    return any(get_origin(option) is Literal or option in (int, float, bool) or is_text(option) for option in options)


def _value_at(place: Path, data: Any) -> Any:
    for part in place:
        data = data[part]
    return data
