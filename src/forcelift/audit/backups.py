"""MIGRATION_BACKUP_LOG: copies that were made of tables, and those that were dropped again."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from msgspec import Struct

from forcelift.audit import tables
from forcelift.audit.journal import Journal, append
from forcelift.audit.text import fit_text, short_table_name


class BackupRow(Struct, frozen=True, kw_only=True):
    """One copy. What the checklist's own INSERT leaves out is None."""

    table_name: str
    backup_table: str
    row_count: int | None
    created_date: datetime | None
    checksum: str | None
    created_by: str | None
    source_url: str | None
    dropped_date: datetime | None
    dropped_by: str | None


class Backups(Journal):
    """Copies of tables."""

    def add_backup(
        self, *, table: str, backup_table: str, rows: int, source_url: str, checksum: str | None, by: str
    ) -> None:
        """Record a copy that was made and counted."""
        with self.write() as connection:
            now = self.clock.now()
            connection.execute(
                tables.backup_log.insert().values(
                    table_name=short_table_name(table),
                    backup_table=backup_table,
                    row_count=rows,
                    created_date=now,
                    checksum=checksum,
                    created_by=fit_text(by, tables.CREATED_BY_BYTES),
                    source_url=source_url,
                )
            )
            payload = {"table": table, "backup": backup_table, "rows": rows, "checksum": checksum, "by": by}
            append(connection, now, "backup_made", payload)

    def backups(self, source_url: str | None = None) -> list[BackupRow]:
        """All copies, oldest first; of one source, if it is named."""
        log = tables.backup_log
        query = sa.select(log).order_by(log.c.created_date, log.c.backup_table)
        if source_url is not None:
            query = query.where(log.c.source_url == source_url)
        names = list(BackupRow.__struct_fields__)
        with self.read() as connection:
            return [BackupRow(**{name: row[name] for name in names}) for row in connection.execute(query).mappings()]

    def backup_dropped(self, backup: BackupRow, *, by: str) -> None:
        """Record that a copy is no more."""
        log = tables.backup_log
        mine = (log.c.backup_table == backup.backup_table) & (log.c.source_url == backup.source_url)
        with self.write() as connection:
            now = self.clock.now()
            connection.execute(
                log.update()
                .where(mine, log.c.dropped_date.is_(None))
                .values(dropped_date=now, dropped_by=fit_text(by, tables.CREATED_BY_BYTES))
            )
            append(connection, now, "backup_dropped", {"backup": backup.backup_table, "by": by})
