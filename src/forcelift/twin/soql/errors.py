"""The errors of a query, in the form in which Salesforce answers them."""

from __future__ import annotations

import re

from forcelift.twin.errors import ApiError

_EXCERPT_BEFORE = 32
_EXCERPT_AFTER = 40


class SoqlError(ApiError):
    """A query that Salesforce would refuse; HTTP status 400.

    `message` is the text as the REST API gives it: where a place in the query is at fault, an empty line, the excerpt,
    the caret, `ERROR at Row:r:Column:c`, and the reason.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(400, code, message)


class NotModelled(SoqlError):
    """A query that Salesforce would carry out and the twin does not; HTTP status 501, which no org answers."""

    def __init__(self, what: str) -> None:
        super().__init__("FUNCTIONALITY_NOT_ENABLED", f"The twin does not carry out {what}")
        self.http_status = 501


def located(text: str, position: int, code: str, reason: str) -> SoqlError:
    """An error with an excerpt of the query and a caret under the place.

    Args:
        text: The whole query.
        position: Offset of the fault, 0 to `len(text)`.
        code: Salesforce's errorCode.
        reason: The sentence after the place.
    """
    position = max(0, min(position, len(text)))
    line_start = text.rfind("\n", 0, position) + 1
    line_end = text.find("\n", position)
    line_end = len(text) if line_end < 0 else line_end
    row = text.count("\n", 0, position) + 1
    column = position - line_start + 1
    start, end = _excerpt(text, line_start, position, line_end)
    caret = " " * (position - start) + "^"
    return SoqlError(code, f"\n{text[start:end]}\n{caret}\nERROR at Row:{row}:Column:{column}\n{reason}")


def _excerpt(text: str, line_start: int, position: int, line_end: int) -> tuple[int, int]:
    """Some words before and after the place, cut between words as the real excerpts are."""
    start = line_start
    if position - line_start > _EXCERPT_BEFORE:
        start = position - _EXCERPT_BEFORE
        gap = re.search(r"[\s,]", text[start:position])
        start += gap.end() if gap else 0
        while start < position and text[start].isspace():
            start += 1
    end = line_end
    if line_end - position > _EXCERPT_AFTER:
        end = position + _EXCERPT_AFTER
        gap_at = max(text.rfind(" ", position + 1, end), text.rfind(",", position + 1, end))
        end = gap_at if gap_at > position else end
    return start, end


def malformed(text: str, position: int, reason: str) -> SoqlError:
    """The query is not SOQL, or joins parts that do not go together."""
    return located(text, position, "MALFORMED_QUERY", reason)


def unknown_object(text: str, position: int, name: str) -> SoqlError:
    """No such object in this org."""
    return located(
        text,
        position,
        "INVALID_TYPE",
        f"sObject type '{name}' is not supported. If you are attempting to use a custom object, be sure to append the "
        "'__c' after the entity name. Please reference your WSDL or the describe call for the appropriate names.",
    )


def unknown_column(text: str, position: int, name: str, entity: str) -> SoqlError:
    """No such field on the object."""
    return located(
        text,
        position,
        "INVALID_FIELD",
        f"No such column '{name}' on entity '{entity}'. If you are attempting to use a custom field, be sure to append "
        "the '__c' after the custom field name. Please reference your WSDL or the describe call for the appropriate "
        "names.",
    )


def unknown_relationship(text: str, position: int, name: str) -> SoqlError:
    """No such relationship in a field path or in a child query."""
    return located(
        text,
        position,
        "INVALID_FIELD",
        f"Didn't understand relationship '{name}' in field path. If you are attempting to use a custom relationship, "
        "be sure to append the '__r' after the custom relationship name. Please reference your WSDL or the describe "
        "call for the appropriate names.",
    )
