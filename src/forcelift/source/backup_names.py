"""What copies in all databases share: their names, the statement that makes one, and what is wrong with a count."""

from __future__ import annotations

from forcelift.errors import SourceError
from forcelift.protocols.backups import Copied
from forcelift.source.names import quote

NOT_MADE = "no copy was made; the table is as it was"


def suffixed(table: str, suffix: str, *, bytes_max: int | None) -> str:
    """The table's name with a suffix, in the same schema.

    Raises:
        SourceError: The database has no names of that length.
    """
    name = table + suffix
    last = name.rpartition(".")[2]
    if bytes_max is not None and len(last.encode()) > bytes_max:
        raise SourceError(
            f"`{last}` is longer than the {bytes_max} bytes that a name may have here",
            state=NOT_MADE,
            hint="give the copy a name by `--name`",
        )
    return name


def quoted_path(name: str) -> str:
    """`schema.table` or `table`, each part quoted."""
    return ".".join(quote(part) for part in name.split(".", 1))


def condition(where: str | None) -> str:
    """The plan's condition as the end of a statement. On lines of its own, so that a comment in it ends there."""
    return "" if where is None else f" WHERE (\n{where}\n)"


def check_rows(copied: Copied, *, table: str, name: str) -> Copied:
    """The copy, if it holds as many rows as the table. Raises `SourceError` if not."""
    if copied.rows == copied.source_rows:
        return copied
    why = "" if copied.is_one_state else "; somebody may have written to the table meanwhile"
    raise SourceError(
        f"the copy `{name}` has {copied.rows:,} rows and the table `{table}` {copied.source_rows:,}{why}",
        state="the copy was taken away again; the table is as it was",
        hint="make the backup again while nobody writes to the table"
        + ("" if copied.is_one_state else ", or of one moment by `--flashback`"),
    )
