"""Oracle's errors as ours: one table says what each number means for a read, and whether to try it again.

Driver errors (`DPY-`) stand in the same table. Nothing is judged by a message's text, but for the number with which a
listener refused, which the driver tells nowhere else. No message of the server or the driver is repeated where it may
hold a value of a row.

Source: python-oracledb, "Catching Exceptions" and its list of errors; Oracle, "Database Error Messages".
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto

import oracledb
import pyarrow as pa

from forcelift.errors import SnapshotLost, SourceChanged, SourceError, SourceFaulty, SourceUnavailable
from forcelift.source.names import UNTOUCHED

CERTIFICATE = "certificate"
"""Stands for a certificate that is not trusted, which has no number of Oracle's."""
NOT_READ = "the chunk was not read; nothing of it was sent"


class Meaning(Enum):
    """What an error means for whoever reads."""

    PASSES = auto()  # sessions that ended, instances that start or stop: the same again, in a new session
    INTERNAL = auto()  # the server failed inside itself: the same again, once
    CROWDED = auto()  # too many sessions, or memory or temporary space used up: the same again, later and by fewer
    TIMED_OUT = auto()  # one call took longer than `call_timeout`
    SIGN_IN = auto()  # never again: it would lock the account
    SETTING = auto()  # the address or the server's settings: nothing passes by itself
    TOO_OLD = auto()  # the undo of the SCN is gone
    MOVED = auto()  # the table was altered, truncated or moved
    NAMES = auto()  # names and grants
    VALUE = auto()  # everything else stopped at a value or a condition


# fmt: off
_TABLE: dict[Meaning, tuple[int | str, ...]] = {
    Meaning.PASSES: (
        28, 31, 604, 1012, 1013, 1033, 1034, 1089, 1090, 1092, 1109, 1219, 2396, 2399, 3113, 3114, 3135, 12170, 12514,
        12526, 12527, 12528, 12537, 12541, 12547, 12570, 12571, 12606, 12608, 12609, 12757, 25408,
        "DPY-1001", "DPY-4005", "DPY-4011", "DPY-6000", "DPY-6001", "DPY-6005",
    ),
    Meaning.INTERNAL: (600, 603, 7445),
    Meaning.CROWDED: (18, 20, 1652, 2391, 4021, 4030, 4031, 4036, 12516, 12518, 12519, 12520, 12801, 12805),
    Meaning.TIMED_OUT: ("DPY-4024",),
    Meaning.SIGN_IN: (1005, 1017, 1045, 28000, 28001, 28009, 28150, "DPY-4001"),
    Meaning.SETTING: (
        12505, 12660, "DPY-2005", "DPY-3001", "DPY-3010", "DPY-3015", "DPY-4000", "DPY-4017", "DPY-4018", "DPY-4020",
        "DPY-4026", "DPY-4027", "DPY-4029", "DPY-6002", "DPY-6003", "DPY-6006", CERTIFICATE,
    ),
    Meaning.TOO_OLD: (1555, 8180, 8181, 22924),
    Meaning.MOVED: (1410, 1466, 8103),
    Meaning.NAMES: (1031, *range(900, 1000)),
}
# fmt: on
MEANINGS: dict[int | str, Meaning] = {code: meaning for meaning, codes in _TABLE.items() for code in codes}

_SIGN_IN: dict[int | str, tuple[str, str]] = {
    1005: ("the password is missing", "write `source.password: ${ENV}`"),
    1017: ("the user or the password is wrong", "check `source.user` and `source.password`"),
    1045: ("the user may not connect", "let a DBA run `GRANT CREATE SESSION`"),
    28000: ("the account is locked", "let a DBA run `ALTER USER ... ACCOUNT UNLOCK`"),
    28001: ("the password has expired", "set a new password, and give it in `source.password`"),
    28009: ("SYS may sign in as SYSDBA only", "use a user who may read no more than the tables"),
    28150: ("the proxy may not act for that user", "let a DBA run `ALTER USER name GRANT CONNECT THROUGH proxy`"),
    "DPY-4001": ("no credentials were given", "write `source.user` and `source.password: ${ENV}`"),
}
_SETTING: dict[int | str, tuple[str, str]] = {
    12505: ("the listener knows no such SID", "check `sid`, or name a service instead"),
    12660: ("the server wants native encryption", "thin mode has none: use `protocol=tcps`"),
    "DPY-3001": ("the server wants native encryption", "thin mode has none: use `protocol=tcps`"),
    "DPY-3010": ("the server is older than 12.1", "thin mode reads 12.1 and later"),
    "DPY-3015": ("the account has an old password verifier only", "let a DBA set the password anew (12C verifier)"),
    "DPY-4000": ("no such name stands in tnsnames.ora", "check the name, and `config_dir`"),
    "DPY-4026": ("there is no tnsnames.ora", "name its folder by `config_dir`, or in TNS_ADMIN"),
    "DPY-4027": ("no folder of tnsnames.ora is named", "name it by `config_dir`, or in TNS_ADMIN"),
    "DPY-6003": ("the listener knows no such SID", "check `sid`, or name a service instead"),
    CERTIFICATE: (
        "the server's certificate is not trusted",
        "name the authority's certificates by `ca_file`, or a wallet by `wallet_location`",
    ),
    "DPY-6006": ("the server's certificate is of another name", "check the host, or `ssl_server_cert_dn`"),
}


# Why connecting failed, where it may pass.
_CONNECT: dict[int | str, tuple[str, str]] = {
    12514: ("the listener knows no such service", "check the service in `source.url`, and that its instance has begun"),
    "DPY-6001": (
        "the listener knows no such service",
        "check the service in `source.url`, and that its instance has begun",
    ),
    "DPY-4011": (
        "the server ended the connection while it was made",
        "see that the instance runs; the same is tried again",
    ),
    "DPY-6000": ("the listener refused the connection", "let a DBA look up the number; the same is tried again"),
    "DPY-6005": (
        "no listener answers there",
        "check host and port in `source.url`, and that the listener takes connections from here",
    ),
}
_REFUSED = re.compile(r"\(Similar to ORA-0*(\d+)\)")


class UnreadableRow(SourceError):
    """A row holds a value that the query or the driver cannot convert."""


class CallTimeout(SourceUnavailable):
    """One call to the server took longer than it may; another may not."""


def code_of(error: oracledb.Error) -> int:
    """The number after `ORA-`; 0 for the driver's own errors."""
    return int(getattr(error.args[0], "code", 0) or 0) if error.args else 0


def _full_code(error: BaseException) -> str:
    return str(getattr(error.args[0], "full_code", "") or "") if error.args else ""


def _codes(error: oracledb.Error) -> list[int | str]:
    """The numbers that an error goes by; one about connecting first by its reasons beneath, others by final ones."""
    reasons: list[int | str] = []
    below = error.__cause__
    while below is not None:
        reasons += _reasons(below)
        below = below.__cause__
    if _full_code(error) != "DPY-6005":
        reasons = [one for one in reasons if MEANINGS.get(one) is Meaning.SETTING]
    return [*reasons, code_of(error), _full_code(error)]


def _reasons(below: BaseException) -> list[int | str]:
    if isinstance(below, ssl.SSLCertVerificationError):
        return [CERTIFICATE]
    full = _full_code(below)
    refused = _REFUSED.search(str(below)) if full == "DPY-6000" else None
    return [int(refused[1]), full] if refused else [full]


def meaning_of(error: oracledb.Error) -> Meaning:
    """What an error of the server or the driver means."""
    return next((MEANINGS[one] for one in _codes(error) if one in MEANINGS), Meaning.VALUE)


@contextmanager
def oracle_errors(what: str) -> Iterator[None]:
    """The server's errors as ours. `what` was to be read, as a message names it.

    The driver's own exception is not kept as the cause: its text may repeat a value of the row it failed on.
    """
    try:
        yield
    except oracledb.Error as error:
        raise worded(error, what) from None
    except OSError as error:
        raise SourceUnavailable(
            f"`{what}` cannot be reached: {error.strerror or type(error).__name__}",
            state=UNTOUCHED,
            hint="check host and port in `source.url`, and that the listener takes connections from here",
        ) from None
    except (pa.ArrowException, ValueError) as error:
        # The driver's own are ValueErrors: a text that is not UTF-8, a date with a month 0.
        raise UnreadableRow(
            f"`{what}` cannot be read: a value does not fit the type of its column ({type(error).__name__})",
            state=NOT_READ,
            hint="look for values that the declared type should not allow; text that is not in the database's own "
            "encoding is read by naming its `encoding`",
        ) from None


def worded(error: oracledb.Error, what: str) -> SourceError:
    """The error as one of ours, in words for people."""
    full, code, codes = _full_code(error), code_of(error), _codes(error)
    shown = f"ORA-{code:05d}" if code else full
    meaning = meaning_of(error)
    if full == "DPY-6005":
        # Beside it, the number that says more.
        shown = next((f"ORA-{one:05d}" if isinstance(one, int) else one for one in codes if one), full)
    if meaning is Meaning.SIGN_IN:
        fault, hint = next(_SIGN_IN[one] for one in codes if one in _SIGN_IN)
        return SourceError(f"`{what}` cannot be opened: {fault} ({shown})", state=UNTOUCHED, hint=hint)
    if meaning is Meaning.SETTING:
        other = ("the address or a setting does not fit the server", f"look up {shown} in the driver's documentation")
        known = next((one for one in codes if one in _SETTING), None)
        fault, hint = other if known is None else _SETTING[known]
        return SourceError(f"`{what}` cannot be opened: {fault} ({shown})", state=UNTOUCHED, hint=hint)
    if meaning is Meaning.TOO_OLD:
        return SnapshotLost(
            f"`{what}` cannot be read as of the batch's SCN any more: the undo is gone ({shown})",
            state="rows read before are as of that SCN; nothing is read from another one under its name",
            hint="go on by `forcelift run --resume`, which takes a new SCN for what was not read yet; a larger "
            "`undo_retention`, or `--extract-first`, makes the SCN last",
        )
    if meaning is Meaning.MOVED:
        return SourceChanged(
            f"`{what}` was altered, truncated or moved while it was read ({shown})",
            state=NOT_READ,
            hint="begin a new batch once nobody alters the table",
        )
    if meaning is Meaning.CROWDED:
        return SourceUnavailable(
            f"`{what}` cannot be read: the server has no session, memory or temporary space left for it ({shown})",
            state=NOT_READ,
            hint="it is tried again; `source.limits.sessions` lowers what is asked of the server at once",
        )
    if meaning is Meaning.TIMED_OUT:
        return CallTimeout(
            f"`{what}` cannot be read: one call took longer than it may ({shown})",
            state=NOT_READ,
            hint="it is tried again; `call_timeout=SECONDS` in `source.url` allows more",
        )
    if meaning is Meaning.PASSES and full == "DPY-6005":
        fault, hint = next(_CONNECT[one] for one in codes if one in _CONNECT)
        return SourceUnavailable(f"`{what}` cannot be opened: {fault} ({shown})", state=UNTOUCHED, hint=hint)
    if meaning is Meaning.PASSES:
        return SourceUnavailable(
            f"`{what}` cannot be read: the server ended the session or the query ({full or shown})",
            state=NOT_READ,
            hint="see that the instance runs and has sessions and memory left; the same is tried again",
        )
    if meaning is Meaning.INTERNAL:
        return SourceFaulty(
            f"`{what}` cannot be read: the server failed inside itself ({shown})",
            state=NOT_READ,
            hint="it is tried once more; if it comes again, let a DBA look into the server's alert log",
        )
    if meaning is Meaning.NAMES:
        return SourceError(
            f"`{what}` cannot be read: {_first_line(error)}",
            state=UNTOUCHED,
            hint="check `where` and the names in the plan; for ORA-01031 let a DBA run `GRANT SELECT` and "
            "`GRANT FLASHBACK` on the table",
        )
    if not code and full:
        return UnreadableRow(
            f"`{what}` cannot be read: the driver stopped at a value or a setting ({full})",
            state=NOT_READ,
            hint=f"look up {full} in the driver's documentation",
        )
    return UnreadableRow(
        f"`{what}` cannot be read: Oracle stopped with {shown}",
        state=NOT_READ,
        hint="look at comparisons and conversions in `where`",
    )


def _first_line(error: oracledb.Error) -> str:
    return str(error).strip().partition("\n")[0].strip()
