"""What the twin raises: faults of its schema file, of its data file, and answers of the API that are errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class TwinError(Exception):
    """Base of all errors of the twin that are meant for a person or for a client of its API."""


class SchemaError(TwinError):
    """The schema cannot be used. Carries all its problems, each with its place in the file."""

    def __init__(self, problems: Sequence[str], *, source: str | None = None) -> None:
        self.problems = tuple(problems)
        self.source = source
        noun = "problem" if len(self.problems) == 1 else "problems"
        super().__init__(
            f"the twin's schema {f'`{source}` ' if source else ''}has {len(self.problems)} {noun}:\n"
            + "\n".join(f"  - {problem}" for problem in self.problems)
        )


class SchemaChanged(SchemaError):
    """The data file was made from another schema, and the new one is not merely an addition to it."""


class StoreError(TwinError):
    """The data file cannot be opened or read as a twin's."""


class CsvRefused(TwinError):
    """An upload that cannot be processed at all: the job becomes `Failed` with `error_message`, no row is looked at."""

    def __init__(self, error_message: str) -> None:
        self.error_message = error_message
        super().__init__(error_message)


class ApiError(TwinError):
    """An error answer of the org's API.

    Args:
        http_status: HTTP status of the answer.
        error_code: Salesforce's `errorCode`.
        message: Text for the client.
        fields: API names of the fields at fault; only errors about a record name any.
    """

    def __init__(self, http_status: int, error_code: str, message: str, fields: Sequence[str] = ()) -> None:
        self.http_status = http_status
        self.error_code = error_code
        self.message = message
        self.fields = tuple(fields)
        super().__init__(f"{http_status} {error_code}: {message}")

    def body(self) -> list[dict[str, Any]]:
        """The answer's JSON body: Salesforce answers a list, never an object."""
        error: dict[str, Any] = {"message": self.message, "errorCode": self.error_code}
        if self.fields:
            error["fields"] = list(self.fields)
        return [error]


def not_found() -> ApiError:
    """The answer to an id or a name that the org does not know, or no longer."""
    return ApiError(404, "NOT_FOUND", "The requested resource does not exist")


def invalid_job_state(message: str) -> ApiError:
    """The answer to a change that the job's state forbids."""
    return ApiError(400, "INVALIDJOBSTATE", message)
