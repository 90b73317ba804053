"""Computed fields and constants: the grammar of both, in one place.

An operand is a column's name, `{column: NAME}`, `{text: TEXT}`, `{number: N}` or an expression. An expression is a map
with one of the names in `EXPRESSIONS`; how deep they nest is bounded, since nobody reads deeper.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args

from msgspec import Struct, field

from forcelift.plan.shape import Path, did_you_mean

# Each expression with an example, for hints and for the reference page.
EXPRESSIONS: Mapping[str, str] = {
    "concat": '{concat: [A, {text: "-"}, B]}',
    "coalesce": '{coalesce: [A, B, {text: "none"}]}',
    "part": "{part: {column: A, from: 1, length: 3}}",
    "letters": "{letters: {column: A, to: upper}}",
    "case": "{case: {column: A, when: {Y: Active, N: Closed}, else: Open}}",
    "add": "{add: [A, B]}",
    "subtract": "{subtract: [A, B]}",
    "multiply": '{multiply: [A, {number: "1.07"}]}',
    "divide": "{divide: {column: A, by: B, scale: 2}}",
}
CONSTANT_FORMS = ("record_type", "owner")
DEPTH_MAX = 4
SCALE_MAX = 18  # no number field of Salesforce keeps more digits after the point
_LITERALS = ("column", "text", "number")
_WHOLE = re.compile(r"-?[0-9]{1,9}\Z", re.ASCII)
_NUMBER = re.compile(r"[+-]?([0-9]{1,19}(\.[0-9]{0,18})?|\.[0-9]{1,18})\Z", re.ASCII)

ArithmeticName = Literal["add", "subtract", "multiply"]
LetterForm = Literal["upper", "lower", "title"]


class ColumnPart(Struct, frozen=True):
    """A value that is taken from a column."""

    column: str


class TextPart(Struct, frozen=True):
    """A fixed text."""

    text: str


class NumberPart(Struct, frozen=True):
    """A fixed number, as it is written."""

    number: str


class Concat(Struct, frozen=True):
    """Operands one after the other; a null one is empty text."""

    parts: tuple[Operand, ...]


class Coalesce(Struct, frozen=True):
    """The first operand that is not null."""

    parts: tuple[Operand, ...]


class Slice(Struct, frozen=True):
    """Characters from the place `start` (1 is the first), at most `length` of them."""

    of: Operand
    start: int
    length: int | None


class Piece(Struct, frozen=True):
    """The piece number `take` between separators; 1 is the first, -1 the last."""

    of: Operand
    separator: str
    take: int


class Letters(Struct, frozen=True):
    """Other letter case."""

    of: Operand
    to: LetterForm


class Case(Struct, frozen=True):
    """One text for another; `other` for what `when` does not name, null included, None for null."""

    of: Operand
    when: tuple[tuple[str, str], ...]
    other: Operand | None


class Arithmetic(Struct, frozen=True):
    """Sum, difference or product, from left to right."""

    name: ArithmeticName
    parts: tuple[Operand, ...]


class Divide(Struct, frozen=True):
    """A quotient, rounded half away from zero to `scale` digits after the point."""

    of: Operand
    by: Operand
    scale: int


Expression = Concat | Coalesce | Slice | Piece | Letters | Case | Arithmetic | Divide
Operand = ColumnPart | TextPart | NumberPart | Expression


class Fault(Struct, frozen=True, kw_only=True):
    """What is wrong with an expression, and at which place within it."""

    path: Path
    message: str
    hint: str | None = None


class ExpressionError(ValueError):
    """A constant has not the form that it should have. `hint` says what to write."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def parse_expression(data: Mapping[str, Any]) -> tuple[Expression | None, list[Fault]]:
    """Read a computed field.

    Returns: the expression, None if something is wrong with it; and all that is wrong.
    """
    parser = _Parser()
    found = parser.expression(data, (), 1)
    return (None if parser.faults else found), parser.faults


def expression_columns(expression: Operand) -> tuple[str, ...]:
    """The columns that an expression reads, each once, in order."""
    return tuple(dict.fromkeys(_columns(expression)))


def _columns(operand: Operand) -> Iterator[str]:
    match operand:
        case ColumnPart():
            yield operand.column
        case TextPart() | NumberPart():
            return
        case Concat() | Coalesce() | Arithmetic():
            for part in operand.parts:
                yield from _columns(part)
        case Case():
            yield from _columns(operand.of)
            if operand.other is not None:
                yield from _columns(operand.other)
        case Divide():
            yield from _columns(operand.of)
            yield from _columns(operand.by)
        case _:
            yield from _columns(operand.of)


class _Parser(Struct):
    faults: list[Fault] = field(default_factory=list)

    def fault(self, path: Path, message: str, hint: str | None = None) -> None:
        self.faults.append(Fault(path=path, message=message, hint=hint))

    def expression(self, data: Mapping[str, Any], path: Path, depth: int) -> Expression | None:
        if len(data) != 1:
            what = "a computed field" if depth == 1 else "an operand"
            self.fault(path, f"{what} is exactly one expression", f"such as `{EXPRESSIONS['concat']}`")
            return None
        name, body = next(iter(data.items()))
        if name not in EXPRESSIONS:
            known = (*EXPRESSIONS, *_LITERALS) if depth > 1 else tuple(EXPRESSIONS)
            self.fault(
                path,
                f"there is no expression `{name[:40]}`",
                did_you_mean(name, known) or f"known are {', '.join(known)}",
            )
            return None
        if depth > DEPTH_MAX:
            self.fault(path, f"expressions nest {DEPTH_MAX} deep at most", "compute a part of it in the source's view")
            return None
        path = (*path, name)
        match name:
            case "concat":
                parts = self.operands(name, body, path, depth, least=1)
                return Concat(parts) if parts else None
            case "coalesce":
                parts = self.operands(name, body, path, depth, least=2)
                return Coalesce(parts) if parts else None
            case "part":
                return self.part(body, path, depth)
            case "letters":
                return self.letters(body, path, depth)
            case "case":
                return self.case(body, path, depth)
            case "divide":
                return self.divide(body, path, depth)
            case "add" | "subtract" | "multiply":
                parts = self.operands(name, body, path, depth, least=2)
                return Arithmetic(name, parts) if parts else None
        raise AssertionError(name)

    def operands(self, name: str, body: Any, path: Path, depth: int, *, least: int) -> tuple[Operand, ...] | None:
        if not isinstance(body, (list, tuple)) or len(body) < least:
            what = "columns and numbers" if name in get_args(ArithmeticName) else "columns and texts"
            many = "two or more " if least > 1 else ""
            self.fault(path, f"`{name}` takes a list of {many}{what}", f"such as `{EXPRESSIONS[name]}`")
            return None
        read = [
            self.number(item, (*path, place), depth)
            if name in get_args(ArithmeticName)
            else self.operand(item, (*path, place), depth)
            for place, item in enumerate(body)
        ]
        found = tuple(one for one in read if one is not None)
        return found if len(found) == len(read) else None

    def operand(self, data: Any, path: Path, depth: int) -> Operand | None:
        if isinstance(data, str) and data:
            return ColumnPart(data)
        if not isinstance(data, dict):
            self.fault(path, "must be a column's name, {text: ...}, {number: ...} or an expression")
            return None
        name = next(iter(data), None)
        if len(data) != 1 or name not in _LITERALS:
            return self.expression(data, path, depth + 1)
        value = data[name]
        if not isinstance(value, str) or (name == "column" and not value):
            self.fault((*path, name), f"`{name}` takes a text")
        elif name == "number" and not _NUMBER.match(value):
            self.fault((*path, name), "must be a plain decimal of at most 19 digits before and 18 after the point")
        elif name == "number":
            return NumberPart(value)
        else:
            return TextPart(value) if name == "text" else ColumnPart(value)
        return None

    def number(self, data: Any, path: Path, depth: int) -> Operand | None:
        """An operand of a calculation."""
        found = self.operand(data, path, depth)
        if isinstance(found, TextPart):
            self.fault(path, "a fixed number is written {number: ...}")
            return None
        return found

    def keys(self, name: str, body: Any, path: Path, needs: tuple[str, ...], may: tuple[str, ...]) -> bool:
        """True if the body is a map with the keys that it must have and no others."""
        hint = f"such as `{EXPRESSIONS[name]}`"
        if not isinstance(body, dict):
            self.fault(path, f"`{name}` takes a map that names its column", hint)
            return False
        before = len(self.faults)
        for key in body:
            if key not in needs and key not in may:
                known = (*needs, *may)
                self.fault(
                    (*path, key),
                    f"`{name}` has no key `{key[:40]}`",
                    did_you_mean(key, known) or f"known here: {', '.join(known)}",
                )
        for key in needs:
            if key not in body:
                self.fault(path, f"`{name}` needs `{key}`", hint)
        return len(self.faults) == before

    def whole(self, body: Mapping[str, Any], key: str, path: Path, *, least: int, most: int) -> int | None:
        text = body[key]
        if isinstance(text, str) and _WHOLE.match(text) and least <= int(text) <= most:
            return int(text)
        upper = f" to {most}" if most < 10**6 else ""
        self.fault((*path, key), f"must be a whole number from {least}{upper}")
        return None

    def part(self, body: Any, path: Path, depth: int) -> Expression | None:
        by_separator = isinstance(body, dict) and ("split" in body or "take" in body)
        needs, may = (("column", "split", "take"), ()) if by_separator else (("column", "from"), ("length",))
        if not self.keys("part", body, path, needs, may):
            return None
        of = self.operand(body["column"], (*path, "column"), depth)
        if by_separator:
            separator, take = body["split"], body["take"]
            if not isinstance(separator, str) or not separator:
                self.fault((*path, "split"), "must be the text between the pieces", 'such as `"-"`')
                return None
            if not isinstance(take, str) or not _WHOLE.match(take) or int(take) == 0:
                self.fault((*path, "take"), "must be the number of a piece: 1 is the first, -1 the last")
                return None
            return None if of is None else Piece(of, separator, int(take))
        start = self.whole(body, "from", path, least=1, most=10**9)
        length = self.whole(body, "length", path, least=1, most=10**9) if "length" in body else None
        return None if of is None or start is None else Slice(of, start, length)

    def letters(self, body: Any, path: Path, depth: int) -> Expression | None:
        if not self.keys("letters", body, path, ("column", "to"), ()):
            return None
        of = self.operand(body["column"], (*path, "column"), depth)
        for form in get_args(LetterForm):
            if body["to"] == form:
                return None if of is None else Letters(of, form)
        self.fault((*path, "to"), f"must be {', '.join(f'`{form}`' for form in get_args(LetterForm))}")
        return None

    def case(self, body: Any, path: Path, depth: int) -> Expression | None:
        if not self.keys("case", body, path, ("column", "when"), ("else",)):
            return None
        of = self.operand(body["column"], (*path, "column"), depth)
        when = body["when"]
        if not isinstance(when, dict) or not when or not all(isinstance(text, str) for text in when.values()):
            self.fault((*path, "when"), "must be a map of texts to texts", "such as `{Y: Active, N: Closed}`")
            return None
        other = body.get("else")
        # A plain text stands for itself here, as it does in `when`; a column is written `{column: NAME}`.
        otherwise = (
            TextPart(other)
            if isinstance(other, str)
            else None
            if other is None
            else self.operand(other, (*path, "else"), depth)
        )
        return None if of is None else Case(of, tuple(when.items()), otherwise)

    def divide(self, body: Any, path: Path, depth: int) -> Expression | None:
        if not self.keys("divide", body, path, ("column", "by", "scale"), ()):
            return None
        of = self.number(body["column"], (*path, "column"), depth)
        by = self.number(body["by"], (*path, "by"), depth)
        if isinstance(by, NumberPart) and not by.number.strip("+-0."):
            self.fault((*path, "by"), "nothing can be divided by zero")
        scale = self.whole(body, "scale", path, least=0, most=SCALE_MAX)
        return None if of is None or by is None or scale is None else Divide(of, by, scale)


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
