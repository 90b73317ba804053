"""Words for findings: what is found, what the plan as it stands does with the rows, and what else could be done."""

from __future__ import annotations

from typing import Final

from forcelift.before.profile.records import Action
from forcelift.rules import rule_remedy
from forcelift.rules.findings import SENTENCES
from forcelift.rules.remedies import PREFIX

REPLACEMENT: Final = "replacement_character"
MOJIBAKE: Final = "mojibake"
SPECIAL: Final = "special_characters"
PERSONAL: Final = "unclassified_personal"
CIRCLE: Final = "circular_reference"
MIXED_ERAS: Final = "mixed_calendars"

_OWN_SENTENCES: Final = {
    REPLACEMENT: "holds U+FFFD, which an earlier conversion put in place of letters that it could not read",
    MOJIBAKE: "looks like text read in a wrong encoding, such as `Ã©` for `é`",
    SPECIAL: "holds letters that cannot be seen: zero width, direction marks, no-break blanks, private use",
    PERSONAL: "looks personal, and the plan does not say whether it is",
    CIRCLE: "the row refers, over one or more others, to itself",
    MIXED_ERAS: "holds years as the Buddhist calendar counts beside years 543 lower",
    "rounded": "has more digits after the point than the field keeps",
    "line_ends": "holds carriage returns",
    "ambiguous_time": "is a clock time that its zone has twice, as at the change to winter time",
    "zero_width": "holds zero-width characters",
}
_OWN_REMEDIES: Final = {
    REPLACEMENT: "The letters are lost in this column: fetch them from where the data came from.",
    MOJIBAKE: "Declare the true `encoding` of the source or column, or mend the texts in the source.",
    SPECIAL: "`zero_width: remove` takes the zero-width ones out; change others in the source.",
    PERSONAL: "Say `personal: true` or `personal: false` at the column.",
    CIRCLE: "Nothing need be done if the circle is meant; else break it in the source.",
    MIXED_ERAS: "Tell the rows apart in the source; `buddhist_era: convert` changes only years from 2400 to 2700.",
    "rounded": "Give the field more decimal places in the org, or round in the source.",
    "outer_blanks": "`outer_blanks: reject` keeps such rows out.",
    "control_characters": "`control_characters: reject` keeps such rows out; `keep` sends them.",
    "line_ends": "Salesforce stores line feeds alone, whatever is sent.",
    "ambiguous_time": "The first of the two is taken; name a zone without change of the clocks if that is wrong.",
    "duplicate": "Decide which copy counts: `duplicates: keep_latest` (with `changed_at`), `keep_first`, `merge`.",
    "empty": "`empty: reject` keeps such rows out; `empty: {default: ...}` fills them.",
    "too_long": "`too_long: reject` keeps such rows out; or make the field longer in the org.",
    "invalid_date": "`invalid_date: reject` keeps such rows out; or mend the dates in the source.",
    "missing_parent": "`missing_parent: reject` keeps such rows out; or load the parents first.",
    "future_date": "Ask the business; choose `future_date: reject`, `to_null` or `keep`.",
    "negative": "Ask the business; choose `negative: reject` or `keep`.",
    "na_text": "`na_text: reject` keeps such rows out.",
    "encoding_error": "Declare the true `encoding` of the source or column, or `encoding_error: reject`.",
    "unmapped": "Add the value to `values`, or `unmapped: reject`.",
    "zero_width": "Nothing need be done: the plan takes them out.",
}
_CHANGES: Final = {
    "outer_blanks": "the blanks are cut off",
    "unmapped": "the value becomes null",
    "empty": "blank text becomes null, or the default",
    "na_text": "the value becomes null",
    "control_characters": "the characters are taken out",
    "invalid_date": "the value becomes null",
    "buddhist_era": "543 years are subtracted",
    "future_date": "the value becomes null",
    "too_long": "the text is cut at the field's length",
    "missing_parent": "the lookup is left empty",
    "encoding_error": "U+FFFD stands in place of the broken bytes",
    "rounded": "the number is rounded, half away from zero",
    "line_ends": "they become line feeds",
    "zero_width": "they are taken out",
}


def sentence(kind: str) -> str:
    """What is found, without the column's name."""
    return _OWN_SENTENCES.get(kind) or SENTENCES[kind]


def outcome(kind: str, action: Action) -> str:
    """What the plan as it stands does with the rows."""
    if kind == MIXED_ERAS:
        return "decided by `buddhist_era`, for each year from 2400 to 2700"
    match action:
        case Action.REJECTED:
            return f"rejected, with code {PREFIX}{kind.upper()}"
        case Action.FAILED:
            return f"sent without this lookup, then counted as failed, with code {PREFIX}{kind.upper()}"
        case Action.DROPPED:
            return "dropped: another copy of the key is sent, as `duplicates` says"
        case Action.CHANGED:
            return f"sent: {_CHANGES.get(kind, 'the value is changed')}; each is counted"
        case Action.WARNED:
            return "sent as it is, and counted with a warning"
        case Action.KEPT:
            return "sent as it is"
        case Action.LINKED:
            return "sent: the lookup is filled by a second pass, once all records exist"
        case Action.TOLD:
            return "masked wherever rows are kept, as all text that the plan says nothing of"


def remedy(kind: str, action: Action) -> str:
    """What else could be done."""
    told = None if action not in (Action.REJECTED, Action.FAILED) else rule_remedy(f"{PREFIX}{kind.upper()}")
    return told or _OWN_REMEDIES.get(kind) or rule_remedy(f"{PREFIX}{kind.upper()}") or ""
