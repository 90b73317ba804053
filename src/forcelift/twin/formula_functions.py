"""The functions of formulas, as SQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from forcelift.twin.errors import TwinError


class FormulaError(TwinError):
    """A formula that cannot be compiled; the message says why and names no record."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """SQL of a value, and its kind: text, number, boolean, date, datetime, time, picklist, multipicklist or null."""

    sql: str
    kind: str


_TEXTS: Final = ("text", "picklist", "multipicklist", "null")
# Arguments and result of functions that are one SQL expression. `*` repeats the last kind; kinds are of `Compiled`.
_PLAIN: Final[dict[str, tuple[tuple[str, ...], str, str]]] = {
    "NOT": (("boolean",), "boolean", "(NOT {0})"),
    "LEN": (("text",), "number", "CAST(length({0}) AS DOUBLE)"),
    "LEFT": (("text", "number"), "text", "left({0}, greatest(CAST({1} AS BIGINT), 0))"),
    "RIGHT": (("text", "number"), "text", "right({0}, greatest(CAST({1} AS BIGINT), 0))"),
    "MID": (("text", "number", "number"), "text", "substr({0}, CAST({1} AS BIGINT), CAST({2} AS BIGINT))"),
    "TRIM": (("text",), "text", "trim({0})"),
    "UPPER": (("text",), "text", "upper({0})"),
    "LOWER": (("text",), "text", "lower({0})"),
    "CONTAINS": (("text", "text"), "boolean", "contains({0}, {1})"),
    "BEGINS": (("text", "text"), "boolean", "starts_with({0}, {1})"),
    "SUBSTITUTE": (("text", "text", "text"), "text", "replace({0}, {1}, {2})"),
    "REGEX": (("text", "text"), "boolean", "regexp_full_match({0}, {1})"),
    "ISPICKVAL": (("picklist", "text"), "boolean", "({0} = {1})"),
    "INCLUDES": (("multipicklist", "text"), "boolean", "list_contains(string_split({0}, ';'), {1})"),
    "VALUE": (("text",), "number", "TRY_CAST({0} AS DOUBLE)"),
    "ISNUMBER": (("text",), "boolean", "(TRY_CAST({0} AS DOUBLE) IS NOT NULL)"),
    "ABS": (("number",), "number", "abs({0})"),
    "ROUND": (("number", "number"), "number", "round({0}, CAST({1} AS INTEGER))"),
    "FLOOR": (("number",), "number", "floor({0})"),
    "CEILING": (("number",), "number", "ceil({0})"),
    "SQRT": (("number",), "number", "CASE WHEN {0} >= 0 THEN sqrt({0}) END"),
    "MOD": (("number", "number"), "number", "({0} % nullif({1}, 0))"),
    "MAX": (("number", "*"), "number", "greatest({*})"),
    "MIN": (("number", "*"), "number", "least({*})"),
    "YEAR": (("date",), "number", "CAST(year({0}) AS DOUBLE)"),
    "MONTH": (("date",), "number", "CAST(month({0}) AS DOUBLE)"),
    "DAY": (("date",), "number", "CAST(day({0}) AS DOUBLE)"),
    "WEEKDAY": (("date",), "number", "CAST(dayofweek({0}) + 1 AS DOUBLE)"),
    "ADDMONTHS": (("date", "number"), "date", "CAST({0} + to_months(CAST({1} AS INTEGER)) AS DATE)"),
    "DATE": (
        ("number", "number", "number"),
        "date",
        "TRY(make_date(CAST({0} AS BIGINT), CAST({1} AS BIGINT), CAST({2} AS BIGINT)))",
    ),
}


class Functions:
    """Compiles calls."""

    def __init__(self, *, now: datetime) -> None:
        self._now = now
        self._special: dict[str, Callable[[Sequence[Compiled]], Compiled]] = {
            "AND": self._and,
            "OR": self._or,
            "IF": self._if,
            "CASE": self._case,
            "ISBLANK": self._is_blank,
            "ISNULL": self._is_blank,
            "BLANKVALUE": self._blank_value,
            "NULLVALUE": self._blank_value,
            "TEXT": self._text,
            "TODAY": self._today,
            "NOW": self._moment,
            "DATEVALUE": self._date_value,
            "DATETIMEVALUE": self._datetime_value,
        }

    def call(self, word: str, arguments: Sequence[Compiled]) -> Compiled:
        """The SQL of a call.

        Raises:
            FormulaError: An unknown function, or arguments that do not fit.
        """
        special = self._special.get(word)
        if special is not None:
            return special(arguments)
        if word not in _PLAIN:
            raise FormulaError(f"Unknown function {word}. The twin has {', '.join(sorted([*_PLAIN, *self._special]))}")
        kinds, gives, pattern = _PLAIN[word]
        repeats = kinds[-1] == "*"
        wanted = [*kinds[:-1], *[kinds[-2]] * (len(arguments) - len(kinds) + 1)] if repeats else list(kinds)
        if len(wanted) != len(arguments):
            raise FormulaError(f"{word} takes {len(kinds)} arguments, not {len(arguments)}")
        for kind, argument in zip(wanted, arguments, strict=True):
            if argument.kind not in (kind, "null"):
                raise FormulaError(f"{word} takes {kind} where {argument.kind} stands")
        if repeats:
            return Compiled(pattern.replace("{*}", ", ".join(argument.sql for argument in arguments)), gives)
        sql = pattern
        # One pass, so that a text of the formula which looks like a mark stays as it is.
        parts = _split_marks(sql)
        return Compiled("".join(arguments[part].sql if isinstance(part, int) else part for part in parts), gives)

    def _and(self, arguments: Sequence[Compiled]) -> Compiled:
        return self._junction("AND", arguments)

    def _or(self, arguments: Sequence[Compiled]) -> Compiled:
        return self._junction("OR", arguments)

    def _junction(self, word: str, arguments: Sequence[Compiled]) -> Compiled:
        _count(word, arguments, 1, 1000)
        for argument in arguments:
            _need(word, argument, "boolean")
        return Compiled("(" + f" {word} ".join(argument.sql for argument in arguments) + ")", "boolean")

    def _if(self, arguments: Sequence[Compiled]) -> Compiled:
        _count("IF", arguments, 3, 3)
        test, yes, no = arguments
        _need("IF", test, "boolean")
        kind = _common("IF", [yes, no])
        return Compiled(f"CASE WHEN {test.sql} THEN {yes.sql} ELSE {no.sql} END", kind)

    def _case(self, arguments: Sequence[Compiled]) -> Compiled:
        if len(arguments) < 4 or len(arguments) % 2:
            raise FormulaError("CASE takes a value, pairs of a value and a result, and a result for all others")
        asked, last = arguments[0], arguments[-1]
        kind = _common("CASE", [*arguments[2:-1:2], last])
        pairs = zip(arguments[1:-1:2], arguments[2:-1:2], strict=True)
        tests = " ".join(f"WHEN {asked.sql} = {value.sql} THEN {result.sql}" for value, result in pairs)
        return Compiled(f"CASE {tests} ELSE {last.sql} END", kind)

    def _is_blank(self, arguments: Sequence[Compiled]) -> Compiled:
        _count("ISBLANK", arguments, 1, 1)
        return Compiled(f"({blank(arguments[0])})", "boolean")

    def _blank_value(self, arguments: Sequence[Compiled]) -> Compiled:
        _count("BLANKVALUE", arguments, 2, 2)
        value, instead = arguments
        kind = _common("BLANKVALUE", [value, instead])
        return Compiled(f"CASE WHEN {blank(value)} THEN {instead.sql} ELSE {value.sql} END", kind)

    def _text(self, arguments: Sequence[Compiled]) -> Compiled:
        _count("TEXT", arguments, 1, 1)
        [value] = arguments
        if value.kind == "number":
            # 5 and not 5.0, as Salesforce writes numbers.
            plain = f"CAST({value.sql} AS VARCHAR)"
            whole = f"CAST(CAST({value.sql} AS BIGINT) AS VARCHAR)"
            exact = f"abs({value.sql}) < 1e15 AND {value.sql} = trunc({value.sql})"
            return Compiled(f"coalesce(CASE WHEN {exact} THEN {whole} ELSE {plain} END, '')", "text")
        if value.kind == "datetime":
            return Compiled(f"coalesce(strftime({value.sql}, '%Y-%m-%d %H:%M:%SZ'), '')", "text")
        if value.kind in ("date", "time"):
            return Compiled(f"coalesce(CAST({value.sql} AS VARCHAR), '')", "text")
        if value.kind in ("picklist", "null"):
            return Compiled(f"coalesce({value.sql}, '')", "text")
        raise FormulaError(f"TEXT takes a number, date, datetime, time or picklist, not {value.kind}")

    def _today(self, arguments: Sequence[Compiled]) -> Compiled:
        _count("TODAY", arguments, 0, 0)
        return Compiled(f"DATE '{self._now:%Y-%m-%d}'", "date")

    def _moment(self, arguments: Sequence[Compiled]) -> Compiled:
        _count("NOW", arguments, 0, 0)
        return Compiled(f"TIMESTAMP '{self._now:%Y-%m-%d %H:%M:%S}'", "datetime")

    def _date_value(self, arguments: Sequence[Compiled]) -> Compiled:
        _count("DATEVALUE", arguments, 1, 1)
        if arguments[0].kind not in ("text", "datetime", "date"):
            raise FormulaError(f"DATEVALUE takes text or a datetime, not {arguments[0].kind}")
        return Compiled(f"TRY_CAST({arguments[0].sql} AS DATE)", "date")

    def _datetime_value(self, arguments: Sequence[Compiled]) -> Compiled:
        _count("DATETIMEVALUE", arguments, 1, 1)
        if arguments[0].kind not in ("text", "datetime", "date"):
            raise FormulaError(f"DATETIMEVALUE takes text or a date, not {arguments[0].kind}")
        return Compiled(f"TRY_CAST({arguments[0].sql} AS TIMESTAMP)", "datetime")


def blank(value: Compiled) -> str:
    """SQL that is true for a blank value: empty text, or null."""
    return f"coalesce({value.sql}, '') = ''" if value.kind in _TEXTS else f"{value.sql} IS NULL"


def _count(word: str, arguments: Sequence[Compiled], least: int, most: int) -> None:
    if not least <= len(arguments) <= most:
        raise FormulaError(
            f"{word} takes {least if least == most else f'{least} or more'} arguments, not {len(arguments)}"
        )


def _need(word: str, value: Compiled, kind: str) -> None:
    if value.kind not in (kind, "null"):
        raise FormulaError(f"{word} takes {kind} where {value.kind} stands")


def _common(word: str, values: Sequence[Compiled]) -> str:
    kinds = {value.kind for value in values} - {"null"}
    if len(kinds) > 1:
        raise FormulaError(f"{word} cannot give {' or '.join(sorted(kinds))}: its results must be of one kind")
    return kinds.pop() if kinds else "null"


def _split_marks(pattern: str) -> list[str | int]:
    parts: list[str | int] = []
    rest = pattern
    while rest:
        before, brace, rest = rest.partition("{")
        parts.append(before)
        if brace:
            number, _, rest = rest.partition("}")
            parts.append(int(number))
    return parts
