"""What to do about rows that a rule rejected: one sentence for each code `REJECTED_<RULE>`."""

from __future__ import annotations

from collections.abc import Mapping

PREFIX = "REJECTED_"

REMEDIES: Mapping[str, str] = {
    "null_key": "Fill the key columns in the source, or leave these rows out by `where`.",
    "duplicate": "Decide which copy counts: `duplicates: keep_latest` (with `changed_at`) or `keep_first`.",
    "encoding_error": "Declare the true `encoding` of the source or column, or choose `encoding_error: replace`.",
    "outer_blanks": "Let `outer_blanks: trim` cut them, as Salesforce would on saving.",
    "unmapped": "Add the value to `values`, or choose `unmapped: keep` or `to_null`.",
    "empty": "Fill the column in the source, or give `empty: {default: ...}`.",
    "na_text": "Salesforce reads this text as null: choose `na_text: to_null`, or change it in the source.",
    "control_characters": "Let `control_characters: remove` take them out.",
    "invalid_number": "Mend the value in the source, or map it by `values`.",
    "invalid_boolean": "Map the values to `true` and `false` by `values`.",
    "invalid_id": "Mend the Id in the source, or look the record up by an external ID.",
    "invalid_time": "Mend the value in the source.",
    "invalid_date": "Mend the date in the source, name its `date_format` or true `timezone`, choose"
    " `invalid_date: to_null`, or `buddhist_era: convert` if it is 29 February of a Buddhist year.",
    "division_by_zero": "Leave the divisor null where there is none, or give it another value in the source.",
    "arithmetic": "Mend the number in the source: no field of Salesforce holds so many digits.",
    "buddhist_era": "Choose `buddhist_era: convert` if the years are Buddhist, `keep` if they are meant so.",
    "future_date": "Ask the business; choose `future_date: warn`, `to_null` or `keep`.",
    "negative": "Ask the business; choose `negative: warn` or `keep`.",
    "number_size": "Make the field larger in the org, or mend the value in the source.",
    "too_long": "Choose `too_long: truncate`, or make the field longer in the org.",
    "picklist": "Map the value by `values`, or add it to the picklist in the org.",
    "empty_required": "Give `empty: {default: ...}`, or fill the column in the source.",
    "missing_parent": "Load the parents first, or choose `missing_parent: to_null`.",
}


def rule_remedy(code: str) -> str | None:
    """The remedy for a code `REJECTED_<RULE>`; None if it is no code of ours."""
    return REMEDIES.get(code.removeprefix(PREFIX).lower()) if code.startswith(PREFIX) else None
