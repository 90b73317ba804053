"""Checks of an Oracle source: its undo, what the user may see, the user's password, and the encoding of its text.

Reads:   a forecast of the snapshot, and the database's own parameters.
Writes:  nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from forcelift.before.check.model import Area, CheckResult, failed, passed, skipped, warned
from forcelift.plan import Plan
from forcelift.protocols.source import AnswersSql, ForgetsSnapshot, Source

NAMES = ("oracle_undo", "oracle_grants", "oracle_password", "oracle_nls")
_AREA = Area.SOURCE
_CHARACTERS = "SELECT value FROM nls_database_parameters WHERE parameter = 'NLS_CHARACTERSET'"
_EXPIRY = "SELECT account_status, expiry_date - SYSDATE AS days FROM user_users"
_PASSWORD_DAYS = 14
_UNICODE = ("AL32UTF8", "UTF8", "UTFE")


def undo(sentences: Sequence[str], *, is_short: bool, figures: str) -> CheckResult:
    """Whether the undo that is kept lasts as long as the batch reads.

    Args:
        sentences: Of the forecast; empty if it lasts.
        is_short: Whether it would not last even if everything were read first.
        figures: Seconds to read and seconds kept, in words.
    """
    if not sentences:
        return passed("oracle_undo", _AREA, figures, "the snapshot lasts half as long again as reading takes")
    fix = sentences[-1]
    if is_short:
        return failed("oracle_undo", _AREA, figures, *sentences, fix=fix)
    return warned("oracle_undo", _AREA, figures, *sentences, fix=fix)


def grants(source: Source) -> CheckResult:
    """Whether the user may read as of one SCN and see how long it is kept; the tables are another check's."""
    name = "oracle_grants"
    if not isinstance(source, ForgetsSnapshot) or source.snapshot() is None:
        fix = "leave `?snapshot=none` out of `source.url`, and let a DBA run `GRANT SELECT ON V_$DATABASE TO ...`"
        return warned(name, _AREA, "no snapshot", "each chunk is read as of its own moment", fix=fix)
    if source.snapshot_seconds() is None:
        fix = "let a DBA run `GRANT SELECT ON V_$UNDOSTAT TO ...` and `GRANT SELECT ON V_$PARAMETER TO ...`"
        return warned(name, _AREA, "undo not visible", "how long a snapshot lasts cannot be asked", fix=fix)
    return passed(name, _AREA, "enough", f"reads as of SCN {source.snapshot()}, and may see how long it is kept")


def password(source: Source) -> CheckResult:
    """Whether the user's password lasts: one that expires amid a load keeps every new session out (ORA-28001)."""
    name = "oracle_password"
    if not isinstance(source, AnswersSql):
        return skipped(name, _AREA, "the source takes no queries")
    status, days = source.ask(_EXPIRY, rows_max=1)[0]
    if days is None:
        return passed(name, _AREA, "no end", f"the account is {status}, and its password does not expire")
    figure = f"{max(int(days), 0)} days"
    words = f"the account is {status}, and its password expires in {figure}"
    if days > _PASSWORD_DAYS:
        return passed(name, _AREA, figure, words)
    fix = "set a new password before the load begins, and give it in `source.password`"
    return warned(name, _AREA, figure, f"{words}; after that no session can be opened (ORA-28001)", fix=fix)


def characters(source: Source, plan: Plan) -> CheckResult:
    """Whether the text of the database is in the character set that it declares, as far as the plan says."""
    name = "oracle_nls"
    if not isinstance(source, AnswersSql):
        return skipped(name, _AREA, "the source takes no queries")
    rows = source.ask(_CHARACTERS, rows_max=1)
    declared = str(rows[0][0]) if rows else "unknown"
    if declared in _UNICODE:
        return passed(name, _AREA, declared, "the sessions' NLS settings are the tool's own")
    encodings = {table.encoding or plan.source.encoding for table in plan.tables}
    if encodings == {"utf-8"}:
        fix = "if other text than that is stored in it, such as Thai: write `source.encoding`, such as TIS-620"
        words = f"text is read as {declared}, the database's character set; the plan names no encoding"
        return warned(name, _AREA, declared, words, fix=fix)
    return passed(name, _AREA, declared, f"the plan reads the stored bytes as {', '.join(sorted(encodings))}")
