"""Errors that arise in the HTTP surface itself; those of jobs, records and queries come from below as `ApiError`.

Source: REST API Developer Guide, "Status Codes and Error Responses".
"""

from __future__ import annotations

from collections.abc import Sequence

from forcelift.twin.errors import ApiError


class HttpError(ApiError):
    """An error answer with headers of its own, such as `Allow`."""

    def __init__(
        self, http_status: int, error_code: str, message: str, *, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(http_status, error_code, message)
        self.headers = headers


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


class ConnectionCut(Exception):
    """The connection ends here without (the rest of) an answer: a fault was armed, or the client has gone."""


def unsupported_media_type(message: str) -> HttpError:
    return HttpError(415, "UNSUPPORTED_MEDIA_TYPE", message)


def method_not_allowed(method: str, allowed: Sequence[str]) -> HttpError:
    text = f"HTTP Method '{method}' not allowed. Allowed are {','.join(allowed)}"
    return HttpError(405, "METHOD_NOT_ALLOWED", text, headers=(("allow", ", ".join(allowed)),))
