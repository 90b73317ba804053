"""SQL for field values: text as sent to a typed value, with the row error that a bad one gives; and back again.

Functions write DuckDB expressions over columns; text is cleaned by polars. No value passes through Python. Forms and
error texts are those of the salesforce-api reference, sections 3.6, 3.7, 5 and 7.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import polars as pl

from forcelift.twin.ids import CHECKSUM
from forcelift.twin.schema import FieldSchema

NULL_TEXT: Final = "#N/A"
_NUMBER: Final = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?"
_DATETIME: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:?[0-9]{2})"
_TIME: Final = r"[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,3})?Z"
_EMAIL: Final = r"[^\s@<>(),;:\\\"\[\]]+@[^\s@<>(),;:\\\"\[\]]+\.[^\s@.<>(),;:\\\"\[\]]+"


def name(identifier: str) -> str:
    """An identifier quoted for SQL."""
    return '"' + identifier.replace('"', '""') + '"'


def text(value: str) -> str:
    """A text constant for SQL."""
    return "'" + value.replace("'", "''") + "'"


def row_error(code: str, message: str, *fields: str) -> str:
    """An SQL text in the form of `sf__Error`; `message` is an SQL expression."""
    return f"{text(code + ':')} || {message} || {text(':' + ','.join(fields) + (' --' if fields else '--'))}"


def id18_sql(expression: str) -> str:
    """The 18-character form of a 15-character (or longer) Id, as SQL."""
    groups = []
    for start in (1, 6, 11):
        bits = " + ".join(
            f"CASE WHEN substr({expression}, {start + place}, 1) BETWEEN 'A' AND 'Z' THEN {1 << place} ELSE 0 END"
            for place in range(5)
        )
        groups.append(f"substr({text(CHECKSUM)}, 1 + {bits}, 1)")
    return f"left({expression}, 15) || " + " || ".join(groups)


def parsed_id(raw: str) -> str:
    """The 18-character Id in a cell, or null if it has not the length of one; `is_id` tells whether it has the form."""
    return f"CASE length({raw}) WHEN 18 THEN {raw} WHEN 15 THEN {id18_sql(raw)} END"


def is_id(value: str) -> str:
    """True if an 18-character text is an Id: letters and digits, and the right checksum."""
    return f"(regexp_full_match({value}, '[0-9A-Za-z]{{15}}[0-5A-Z]{{3}}') AND {id18_sql(value)} = {value})"


def text_value(cell: pl.Expr, *, carriage_returns: bool = True) -> pl.Expr:
    """What a text field stores for a cell: outer blanks off, line ends folded, null for `#N/A` and for blanks only.

    `carriage_returns` False says that no cell holds one.
    """
    stripped = cell
    if carriage_returns:
        stripped = stripped.str.replace_all("\r\n", "\n", literal=True).str.replace_all("\r", "\n", literal=True)
    stripped = stripped.str.strip_chars("\t\n\v\f\r ")
    return pl.when((cell != NULL_TEXT) & (stripped != "")).then(stripped)


def parsed(field: FieldSchema, raw: str) -> str:
    """The typed value of a cell of a type that is not text; null if it is empty, `#N/A` or not of that type."""
    match field.type:
        case "boolean":
            return (
                f"CASE WHEN lower({raw}) IN ('true', '1', 'yes', 'y') THEN true "
                f"WHEN lower({raw}) IN ('false', '0', 'no', 'n') OR {raw} = '{NULL_TEXT}' THEN false END"
            )
        case "int":
            return f"CASE WHEN regexp_full_match({raw}, '[+-]?[0-9]+') THEN TRY_CAST({raw} AS BIGINT) END"
        case "date":
            # A datetime is taken too: its time is dropped and its zone is never applied (reference, section 9, 29).
            return (
                f"CASE WHEN regexp_full_match({raw}, '[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}Z?') OR "
                f"regexp_full_match({raw}, {text(_DATETIME)}) AND TRY_CAST(left({raw}, 19) AS TIMESTAMP) IS NOT NULL "
                f"THEN TRY_CAST(left({raw}, 10) AS DATE) END"
            )
        case "datetime":
            return _parsed_datetime(raw)
        case "time":
            return f"CASE WHEN regexp_full_match({raw}, {text(_TIME)}) THEN TRY_CAST(rtrim({raw}, 'Z') AS TIME) END"
        case "id" | "reference":
            return parsed_id(raw)
    # DuckDB rounds half away from zero when it reads text as DECIMAL, as the platform does on save.
    return f"CASE WHEN regexp_full_match({raw}, {text(_NUMBER)}) THEN TRY_CAST({raw} AS {field.sql_type}) END"


def _parsed_datetime(raw: str) -> str:
    # DuckDB's cast drops the offset, so it is taken off and applied here. Fractions of a second are cut.
    moment = f"TRY_CAST(left({raw}, 19) AS TIMESTAMP)"
    minutes = (
        f"(CASE WHEN contains(right({raw}, 6), '-') THEN -1 ELSE 1 END * ("
        f"TRY_CAST(regexp_extract({raw}, '([0-9]{{2}}):?[0-9]{{2}}$', 1) AS INTEGER) * 60 + "
        f"TRY_CAST(right({raw}, 2) AS INTEGER)))"
    )
    return (
        f"CASE WHEN NOT regexp_full_match({raw}, {text(_DATETIME)}) THEN NULL "
        f"WHEN right({raw}, 1) = 'Z' THEN {moment} ELSE {moment} - to_minutes({minutes}) END"
    )


def number_limit(field: FieldSchema) -> int | None:
    """The first number that is too large for the field, where its column could hold one."""
    if field.type == "int":
        return int(min(10**field.digits if field.digits else 2**31, 2**31))
    if field.is_number and field.precision not in (0, 18, 38):
        return int(10 ** (field.precision - field.scale))
    return None


def value_errors(field: FieldSchema, cell: str, value: str) -> list[tuple[str, str]]:
    """What can be wrong with a cell: pairs of SQL condition and SQL error text, the first that holds counts.

    Whether the target of a reference exists is checked apart.
    """
    if field.is_text:
        return _text_errors(field, value)
    label = field.label
    code, message = "INVALID_TYPE_ON_FIELD_IN_RECORD", f"{label}: value not of required type: "
    errors = []
    if field.type == "int" or field.is_number:
        pattern = "[+-]?[0-9]+" if field.type == "int" else _NUMBER
        too_large = f"{value} IS NULL AND regexp_full_match({cell}, {text(pattern)})"
        if (limit := number_limit(field)) is not None:
            too_large += f" OR abs({value}) >= {limit}"
        outside = text(f"{label}: value outside of valid range on numeric field: ")
        errors.append((too_large, row_error("NUMBER_OUTSIDE_VALID_RANGE", f"{outside} || {cell}", field.name)))
    elif field.type in ("date", "datetime"):
        invalid = row_error(code, f"{text(label + ': invalid date: ')} || {cell}", field.name)
        errors.append((f"year({value}) NOT BETWEEN 1700 AND 4000", invalid))
    elif field.type in ("id", "reference"):
        code, message = "MALFORMED_ID", f"{label}: id value of incorrect type: "
    unread = f"{value} IS NULL AND {cell} NOT IN ('', '{NULL_TEXT}')"
    return [*errors, (unread, row_error(code, f"{text(message)} || {cell}", field.name))]


def _text_errors(field: FieldSchema, value: str) -> list[tuple[str, str]]:
    errors = []
    if field.length:
        # Length counts UTF-16 units; a text of no more bytes than that cannot be too long, which spares the count.
        supplementary = rf"length(regexp_replace({value}, '[^\x{{10000}}-\x{{10FFFF}}]', '', 'g'))"
        condition = (
            f"CASE WHEN strlen({value}) <= {field.length} THEN false "
            f"ELSE length({value}) + {supplementary} > {field.length} END"
        )
        limit = text(f" (max length={field.length})")
        message = f"{text(field.label + ': data value too large: ')} || {value} || {limit}"
        errors.append((condition, row_error("STRING_TOO_LONG", message, field.name)))
    if field.type == "email":
        message = f"{text(field.label + ': invalid email address: ')} || {value}"
        condition = f"NOT regexp_full_match({value}, {text(_EMAIL)})"
        errors.append((condition, row_error("INVALID_EMAIL_ADDRESS", message, field.name)))
    if field.restricted_picklist:
        errors.append((picklist_lacks(field, field.active_values, value), bad_picklist_value(field, value)))
    return errors


def picklist_lacks(field: FieldSchema, allowed: Iterable[str], value: str) -> str:
    """True, as SQL, if a value is none of the allowed ones, or an entry of a multipicklist is not; null for null."""
    listed = "[" + ", ".join(text(entry) for entry in allowed) + "]::VARCHAR[]"
    if field.type == "multipicklist":
        return f"NOT list_has_all({listed}, string_split({value}, ';'))"
    return f"NOT list_contains({listed}, {value})"


def bad_picklist_value(field: FieldSchema, value: str) -> str:
    """The error of a value that a restricted picklist has not."""
    message = f"{text(field.label + ': bad value for restricted picklist field: ')} || {value}"
    return row_error("INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", message, field.name)


def match_key(field: FieldSchema, expression: str) -> str:
    """A stored or parsed value as unique and external-ID fields compare it.

    Text ignores case unless the field is unique and case sensitive; outer blanks are gone already.
    """
    if not field.is_text:
        return expression
    return expression if field.case_sensitive else f"lower({expression})"


def default_sql(field: FieldSchema) -> str:
    """What an insert stores in the field when it gives nothing, as SQL; NULL if there is no default."""
    value = field.default_value
    if field.type == "boolean":
        return "true" if value in (True, "true") else "false"
    if value is None:
        return "NULL"
    return f"CAST({text(str(value))} AS {field.sql_type})"


def echoed(field: FieldSchema | None, raw: str) -> str:
    """A cell as the result files give it back: numbers in Java's Double form, datetimes with milliseconds in UTC.

    A cell that is empty, `#N/A` or not of the field's type comes back as it was sent.
    """
    if field is None or field.is_text or field.type in ("id", "reference", "int", "date"):
        return raw
    if field.type == "boolean":
        value = f"CAST({parsed(field, raw)} AS VARCHAR)"
    elif field.is_number:
        value = (
            f"CASE WHEN regexp_full_match({raw}, {text(_NUMBER)}) THEN {java_double(f'TRY_CAST({raw} AS DOUBLE)')} END"
        )
    elif field.type == "datetime":
        value = f"strftime({parsed(field, raw)}, '%Y-%m-%dT%H:%M:%S.000Z')"
    else:
        value = f"strftime({parsed(field, raw)}, '%H:%M:%S.%gZ')"
    return f"coalesce({value}, {raw})"


def java_double(number: str) -> str:
    """A DOUBLE as Java's `Double.toString` writes it: `500.0`, `9.12260031E8`, `5.0E-4`."""
    shortest = f"CAST({number} AS VARCHAR)"
    # Digits without sign, point and exponent, and the power of ten of the first one, from DuckDB's shortest form.
    mantissa = f"split_part(ltrim({shortest}, '-'), 'e', 1)"
    exponent = f"coalesce(TRY_CAST(split_part({shortest}, 'e', 2) AS INTEGER), 0)"
    whole = f"split_part({mantissa}, '.', 1)"
    fraction = f"split_part({mantissa}, '.', 2)"
    digits = f"rtrim(ltrim({whole} || {fraction}, '0'), '0')"
    leading = (
        f"CASE WHEN {whole} <> '0' THEN length({whole}) - 1 ELSE length(ltrim({fraction}, '0')) "
        f"- length({fraction}) - 1 END"
    )
    scientific = (
        f"CASE WHEN {number} < 0 THEN '-' ELSE '' END || left({digits}, 1) || '.' || "
        f"CASE WHEN length({digits}) > 1 THEN substr({digits}, 2) ELSE '0' END || 'E' || "
        f"CAST({leading} + {exponent} AS VARCHAR)"
    )
    return (
        f"CASE WHEN {number} = 0 OR abs({number}) >= 1e-3 AND abs({number}) < 1e7 THEN {shortest} ELSE {scientific} END"
    )
