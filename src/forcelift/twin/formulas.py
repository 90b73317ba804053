"""Formulas of validation rules and of other automations, compiled to SQL over columns.

A useful subset of Salesforce's formula language: fields of the record itself, operators, and the functions in
`formula_functions`. What is beyond it raises `FormulaError`, when an org is opened and not when rows come. Blank text
counts as empty text; a comparison with a null number or date is false. Numbers are computed as doubles.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any, Final

import duckdb
from lark import Lark
from lark.exceptions import UnexpectedInput, UnexpectedToken

from forcelift.twin.database import connect
from forcelift.twin.formula_functions import Compiled, FormulaError, Functions, blank
from forcelift.twin.schema import FieldSchema, ObjectSchema
from forcelift.twin.values import name as quoted
from forcelift.twin.values import text

CHARACTERS_MAX: Final = 5_000  # of one formula, in Salesforce too
_NESTING_MAX: Final = 60
_KINDS: Final = {
    "boolean": "boolean",
    "int": "number",
    "double": "number",
    "currency": "number",
    "percent": "number",
    "date": "date",
    "datetime": "datetime",
    "time": "time",
    "picklist": "picklist",
    "multipicklist": "multipicklist",
}
_LEVELS: Final = frozenset({"disjunction", "conjunction", "comparison", "joined", "arithmetic", "power"})
_MOMENTS: Final = ("date", "datetime")

Column = Callable[[FieldSchema, bool], str]
"""SQL of a field's value: as it will be, or (True) as it was before."""


def check_formula(formula: str, entry: ObjectSchema, *, wants: str = "boolean") -> str | None:
    """What is wrong with a formula about records of the object, or None.

    Args:
        formula: Its text.
        entry: The object.
        wants: Kind of value that it must give; `any` for a formula that fills a field.
    """
    try:
        found = compile_formula(formula, entry, _named, is_new="false", now=datetime(2026, 1, 1))  # noqa: DTZ001 - any
        if wants != "any" and found.kind != wants:
            return f"gives {found.kind}, but {wants} is needed"
        columns = {_named(field, old): field.sql_type for field in entry.stored_fields for old in (False, True)}
        listed = ", ".join(f"CAST(NULL AS {kind}) AS {column}" for column, kind in columns.items())
        with connect() as connection:
            connection.execute(f"SELECT {found.sql} FROM (SELECT {listed}) WHERE false").fetchall()
    except FormulaError as error:
        return str(error)
    except duckdb.Error as error:
        return f"cannot be computed: {str(error).splitlines()[0]}"
    return None


def _named(field: FieldSchema, old: bool) -> str:
    return quoted(f"old {field.name}" if old else field.name)


def compile_formula(formula: str, entry: ObjectSchema, column: Column, *, is_new: str, now: datetime) -> Compiled:
    """Compile a formula.

    Args:
        formula: Its text.
        entry: The object whose records it is about.
        column: Gives the SQL of a field; it is also how the caller learns which fields are read.
        is_new: SQL that is true for a record that is being inserted.
        now: The org's time, UTC.
    Raises:
        FormulaError: It cannot be parsed, or uses what the twin does not model.
    """
    if len(formula) > CHARACTERS_MAX:
        raise FormulaError(f"is longer than {CHARACTERS_MAX} characters")
    try:
        tree = _parser().parse(formula)
    except UnexpectedInput as error:
        place = f"line {error.line}, column {error.column}"
        what = f"unexpected `{error.token}`" if isinstance(error, UnexpectedToken) else "unexpected character"
        raise FormulaError(f"syntax error at {place}: {what}") from error
    return _Compiler(entry, column, is_new=is_new, now=now).value(tree.children[0], 0)


@cache
def _parser() -> Lark:
    grammar = resources.files("forcelift.twin").joinpath("formula.lark").read_text(encoding="utf-8")
    return Lark(grammar, parser="lalr", maybe_placeholders=False)


class _Compiler:
    def __init__(self, entry: ObjectSchema, column: Column, *, is_new: str, now: datetime) -> None:
        self._entry = entry
        self._column = column
        self._is_new = is_new
        self._functions = Functions(now=now)

    def value(self, node: Any, depth: int) -> Compiled:
        if depth > _NESTING_MAX:
            raise FormulaError(f"is nested more than {_NESTING_MAX} deep")
        # Each level of binding strength wraps what it holds, also where its operator does not stand.
        while node.data in _LEVELS and len(node.children) == 1:
            node = node.children[0]
        handler = getattr(self, f"_{node.data}")
        found: Compiled = handler(node.children, depth + 1)
        return found

    def _string(self, children: list[Any], depth: int) -> Compiled:
        del depth
        plain = re.sub(
            r"\\(.)", lambda match: {"n": "\n", "r": "\r", "t": "\t"}.get(match[1], match[1]), children[0][1:-1]
        )
        return Compiled(text(plain), "text")

    def _number(self, children: list[Any], depth: int) -> Compiled:
        del depth
        return Compiled(f"CAST({children[0]} AS DOUBLE)", "number")

    def _name(self, children: list[Any], depth: int) -> Compiled:
        del depth
        word = str(children[0])
        constant = {"TRUE": ("true", "boolean"), "FALSE": ("false", "boolean"), "NULL": ("NULL", "null")}.get(
            word.upper()
        )
        return Compiled(*constant) if constant is not None else self._field(word, old=False)

    def _path(self, children: list[Any], depth: int) -> Compiled:
        del depth
        raise FormulaError(
            f"`{children[0]}` reaches beyond the record; the twin knows fields of the record itself only"
        )

    def _field(self, word: str, *, old: bool) -> Compiled:
        field = self._entry.field(word)
        if field is None or not field.stored:
            raise FormulaError(f"Field {word} does not exist on {self._entry.name}. Check spelling.")
        kind = _KINDS.get(field.type, "text")
        sql = self._column(field, old)
        if kind == "number":
            return Compiled(f"CAST({sql} AS DOUBLE)", kind)
        if kind == "boolean":
            return Compiled(f"coalesce({sql}, false)", kind)
        return Compiled(f"coalesce({sql}, '')" if kind in ("text", "picklist", "multipicklist") else sql, kind)

    def _disjunction(self, children: list[Any], depth: int) -> Compiled:
        return self._functions.call("OR", [self.value(child, depth) for child in children])

    def _conjunction(self, children: list[Any], depth: int) -> Compiled:
        return self._functions.call("AND", [self.value(child, depth) for child in children])

    def _negation(self, children: list[Any], depth: int) -> Compiled:
        return self._functions.call("NOT", [self.value(children[0], depth)])

    def _comparison(self, children: list[Any], depth: int) -> Compiled:
        left, operator, right = self.value(children[0], depth), str(children[1]), self.value(children[2], depth)
        for side in (left, right):
            if side.kind in ("picklist", "multipicklist"):
                raise FormulaError("a picklist can be asked by ISPICKVAL, INCLUDES, TEXT, ISBLANK and ISCHANGED only")
        kinds = {left.kind, right.kind} - {"null"}
        if len(kinds) > 1:
            raise FormulaError(f"`{operator}` compares {left.kind} with {right.kind}")
        if kinds == {"boolean"} and operator not in ("=", "==", "<>", "!="):
            raise FormulaError(f"`{operator}` cannot compare booleans")
        if "null" in (left.kind, right.kind):
            known = left if right.kind == "null" else right
            test = blank(known)
            return Compiled(f"({test})" if operator in ("=", "==") else f"(NOT ({test}))", "boolean")
        sql = {"==": "=", "!=": "<>"}.get(operator, operator)
        if sql == "<>":
            return Compiled(f"({left.sql} IS DISTINCT FROM {right.sql})", "boolean")
        return Compiled(f"coalesce({left.sql} {sql} {right.sql}, false)", "boolean")

    def _joined(self, children: list[Any], depth: int) -> Compiled:
        parts = [self.value(child, depth) for child in children]
        for part in parts:
            if part.kind != "text":
                raise FormulaError(f"`&` joins texts, not {part.kind}")
        return Compiled("(" + " || ".join(part.sql for part in parts) + ")", "text")

    def _arithmetic(self, children: list[Any], depth: int) -> Compiled:
        found = self.value(children[0], depth)
        for operator, child in zip(children[1::2], children[2::2], strict=True):
            found = _combined(found, str(operator), self.value(child, depth))
        return found

    def _power(self, children: list[Any], depth: int) -> Compiled:
        base, exponent = (self.value(child, depth) for child in children)
        _need_numbers("^", base, exponent)
        return Compiled(f"pow({base.sql}, {exponent.sql})", "number")

    def _minus(self, children: list[Any], depth: int) -> Compiled:
        found = self.value(children[1], depth)
        _need_numbers("-", found)
        return Compiled(f"(- {found.sql})", "number")

    def _call(self, children: list[Any], depth: int) -> Compiled:
        word, arguments = str(children[0]).upper(), children[1:]
        if word == "ISNEW":
            if arguments:
                raise FormulaError("ISNEW takes no argument")
            return Compiled(f"({self._is_new})", "boolean")
        if word in ("ISCHANGED", "PRIORVALUE"):
            if len(arguments) != 1:
                raise FormulaError(f"{word} takes a field")
            [node] = arguments
            while node.data in _LEVELS and len(node.children) == 1:
                node = node.children[0]
            if node.data != "name":
                raise FormulaError(f"{word} takes a field")
            name = node.children[0]
            now = self._field(str(name), old=False)
            before = self._field(str(name), old=True)
            if word == "ISCHANGED":
                return Compiled(f"(NOT ({self._is_new}) AND {now.sql} IS DISTINCT FROM {before.sql})", "boolean")
            # For a new record the prior value is the value itself.
            return Compiled(f"CASE WHEN {self._is_new} THEN {now.sql} ELSE {before.sql} END", now.kind)
        return self._functions.call(word, [self.value(child, depth) for child in arguments])


def _combined(left: Compiled, operator: str, right: Compiled) -> Compiled:
    kinds = (left.kind, right.kind)
    if operator == "+" and kinds == ("text", "text"):
        return Compiled(f"({left.sql} || {right.sql})", "text")
    if operator in "+-" and left.kind in _MOMENTS and right.kind == "number":
        days = f"CAST(trunc({right.sql}) AS INTEGER)" if left.kind == "date" else f"to_seconds({right.sql} * 86400)"
        return Compiled(f"({left.sql} {operator} {days})", left.kind)
    if operator == "+" and left.kind == "number" and right.kind in _MOMENTS:
        return _combined(right, operator, left)
    if operator == "-" and left.kind in _MOMENTS and left.kind == right.kind:
        if left.kind == "date":
            return Compiled(f"CAST({left.sql} - {right.sql} AS DOUBLE)", "number")
        return Compiled(f"((epoch({left.sql}) - epoch({right.sql})) / 86400)", "number")
    _need_numbers(operator, left, right)
    if operator == "/":
        return Compiled(f"({left.sql} / nullif({right.sql}, 0))", "number")
    return Compiled(f"({left.sql} {operator} {right.sql})", "number")


def _need_numbers(operator: str, *values: Compiled) -> None:
    for value in values:
        if value.kind not in ("number", "null"):
            raise FormulaError(f"`{operator}` works on numbers, not {value.kind}")
