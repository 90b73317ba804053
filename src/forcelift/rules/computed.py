"""Fields that are computed from several columns: the plan's expressions on whole columns of canonical text.

Operands are the cleaned values of the columns. The result is then treated as any source value: the rules of the target
field's type apply to it, each with its default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import polars as pl
from msgspec import Struct

from forcelift.plan import expressions as plan
from forcelift.rules import arithmetic, numbers, texts
from forcelift.rules.arithmetic import Calculated
from forcelift.rules.column import Column
from forcelift.rules.findings import Findings, Place


class Computed(Struct, frozen=True, kw_only=True):
    """A field made by an expression; `column` holds what the field takes, and where findings belong."""

    target: str
    expression: plan.Expression
    column: Column

    def clean(
        self, columns: Mapping[str, pl.Series], height: int, found: Findings, as_of: datetime | None
    ) -> pl.Series:
        """Canonical text of the field, null for none.

        Args:
            columns: Canonical texts of at least the columns that the expression reads.
        """
        made = _Evaluation(columns, height, found, self.column.place).value(self.expression)
        return self.column.clean(_blank_to_null(made.str.strip_chars(texts.BLANKS)), found, as_of)


class _Evaluation(Struct, frozen=True):
    columns: Mapping[str, pl.Series]
    height: int
    found: Findings
    place: Place

    def value(self, operand: plan.Operand) -> pl.Series:
        match operand:
            case plan.ColumnPart():
                return self.columns[operand.column].alias("")
            case plan.TextPart():
                return self._all(operand.text)
            case plan.NumberPart():
                return self._all(operand.number)
            case plan.Concat():
                parts = {str(place): self.value(part).fill_null("") for place, part in enumerate(operand.parts)}
                return _blank_to_null(pl.DataFrame(parts).select(pl.concat_str(pl.all()).alias("")).to_series())
            case plan.Coalesce():
                return _first_present([self.value(part) for part in operand.parts])
            case plan.Slice():
                return _blank_to_null(self.value(operand.of).str.slice(operand.start - 1, operand.length))
            case plan.Piece():
                place = operand.take - 1 if operand.take > 0 else operand.take
                pieces = self.value(operand.of).str.split(operand.separator)
                return _blank_to_null(pieces.list.get(place, null_on_oob=True))
            case plan.Letters():
                return _letters(self.value(operand.of), operand.to)
            case plan.Case():
                return self._case(operand)
            case plan.Arithmetic():
                return self._arithmetic(operand)
            case plan.Divide():
                return self._divide(operand)

    def _all(self, text: str) -> pl.Series:
        return pl.repeat(text, self.height, dtype=pl.String, eager=True)

    def _case(self, case: plan.Case) -> pl.Series:
        of = self.value(case.of)
        names = [name for name, _ in case.when]
        other = self._all("").set(pl.repeat(True, self.height, eager=True), None)
        frame = pl.DataFrame(
            {
                "named": of.is_in(names).fill_null(False),
                "then": of.replace_strict(names, [text for _, text in case.when], default=None, return_dtype=pl.String),
                "other": other if case.other is None else self.value(case.other),
            }
        )
        chosen = frame.select(pl.when("named").then("then").otherwise("other").alias("")).to_series()
        return _blank_to_null(chosen)

    def _arithmetic(self, expression: plan.Arithmetic) -> pl.Series:
        act = {"add": arithmetic.add, "subtract": arithmetic.subtract, "multiply": arithmetic.multiply}[expression.name]
        first, *others = [self._number(part) for part in expression.parts]
        for other in others:
            first = self._kept(act(first, other))
        return first

    def _divide(self, expression: plan.Divide) -> pl.Series:
        quotients, by_zero = arithmetic.divide(
            self._number(expression.of), self._number(expression.by), scale=expression.scale
        )
        self.found.refuse("division_by_zero", self.place, by_zero)
        return self._kept(quotients)

    def _number(self, operand: plan.Operand) -> pl.Series:
        values = self.value(operand)
        exact = numbers.number_text(values, scale=None)
        if exact.null_count() > values.null_count():
            self.found.refuse("invalid_number", self.place, (exact.is_null() & values.is_not_null()).arg_true())
        return self._kept(arithmetic.operand(exact))

    def _kept(self, calculated: Calculated) -> pl.Series:
        self.found.refuse("arithmetic", self.place, calculated.too_large)
        return calculated.values


def _first_present(parts: Sequence[pl.Series]) -> pl.Series:
    frame = pl.DataFrame({str(place): _blank_to_null(part) for place, part in enumerate(parts)})
    return frame.select(pl.coalesce(pl.all()).alias("")).to_series()


def _letters(values: pl.Series, to: plan.LetterForm) -> pl.Series:
    if to == "upper":
        return values.str.to_uppercase()
    return values.str.to_lowercase() if to == "lower" else values.str.to_titlecase()


def _blank_to_null(values: pl.Series) -> pl.Series:
    blank = (values.str.strip_chars(texts.BLANKS) == "").arg_true()
    return values.clone().scatter(blank, None) if blank.len() else values
