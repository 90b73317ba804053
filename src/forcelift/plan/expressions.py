"""Computed fields and constants: their forms, and which columns they need.

`concat` is RULES.md's. The other names have their place already, so that a plan that uses them is told apart from a
typing error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from forcelift.plan.shape import did_you_mean

EXPRESSIONS = ("concat", "coalesce", "part", "case", "add", "subtract", "multiply", "divide")
CONSTANT_FORMS = ("record_type", "owner")


@dataclass(frozen=True, slots=True)
class ColumnPart:
    """A part that is taken from a column."""

    column: str


@dataclass(frozen=True, slots=True)
class TextPart:
    """A part that is a fixed text."""

    text: str


Part = ColumnPart | TextPart


class ExpressionError(ValueError):
    """An expression has not the form that it should have. `hint` says what to write."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def expression_name(expression: Mapping[str, Any]) -> str:
    """The one name of an expression.

    Raises:
        ExpressionError: There is none, more than one, or an unknown one.
    """
    if len(expression) != 1:
        raise ExpressionError("a computed field is exactly one expression", "write `{concat: [A, B]}`")
    name = next(iter(expression))
    if name not in EXPRESSIONS:
        hint = did_you_mean(name, EXPRESSIONS) or f"known are {', '.join(EXPRESSIONS)}"
        raise ExpressionError(f"there is no expression `{name[:40]}`", hint)
    return name


def concat_parts(expression: Mapping[str, Any]) -> tuple[Part, ...]:
    """The parts of `{concat: [...]}`, in order.

    Raises:
        ExpressionError: It has another form.
    """
    parts = expression.get("concat")
    if not isinstance(parts, (list, tuple)) or not parts:
        raise ExpressionError("`concat` takes a list of columns and texts", 'write `{concat: [A, {text: "-"}, B]}`')
    return tuple(_part(part, "concat") for part in parts)


def expression_columns(expression: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns that an expression reads, each once, in order.

    Raises:
        ExpressionError: It has not the form of its name.
    """
    name = expression_name(expression)
    operands = expression[name]
    match name:
        case "concat":
            parts = concat_parts(expression)
        case "coalesce" | "add" | "subtract" | "multiply" | "divide":
            if not isinstance(operands, (list, tuple)) or len(operands) < 2:
                raise ExpressionError(f"`{name}` takes a list of two or more columns and texts", None)
            parts = tuple(_part(part, name) for part in operands)
        case _:
            if not isinstance(operands, dict) or not isinstance(operands.get("of"), str) or not operands["of"]:
                raise ExpressionError(
                    f"`{name}` takes a map that names its column", f"write `{{{name}: {{of: COLUMN, ...}}}}`"
                )
            parts = (ColumnPart(operands["of"]),)
    return tuple(dict.fromkeys(part.column for part in parts if isinstance(part, ColumnPart)))


def constant_form(value: str | Mapping[str, str]) -> tuple[str, str]:
    """A constant's form (`text`, `record_type` or `owner`) and its text.

    Raises:
        ExpressionError: It has another form.
    """
    if isinstance(value, str):
        return "text", value
    if len(value) != 1 or next(iter(value)) not in CONSTANT_FORMS:
        key = next(iter(value), "")
        raise ExpressionError(
            "a constant is a text, `{record_type: NAME}` or `{owner: USERNAME}`", did_you_mean(key, CONSTANT_FORMS)
        )
    form, text = next(iter(value.items()))
    if not text.strip():
        raise ExpressionError(f"`{form}` names nothing")
    return form, text


def _part(part: Any, name: str) -> Part:
    if isinstance(part, str) and part:
        return ColumnPart(part)
    if isinstance(part, dict) and list(part) == ["text"] and isinstance(part["text"], str):
        return TextPart(part["text"])
    raise ExpressionError(f"each part of `{name}` is a column or `{{text: ...}}`")
