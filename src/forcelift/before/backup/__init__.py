"""Copies of the source's tables before a migration."""

from forcelift.before.backup.execute import (
    BackupPlanned,
    DropDecision,
    Dropping,
    check_room_of_all,
    decide_drops,
    plan_backup,
)

__all__ = ["BackupPlanned", "DropDecision", "Dropping", "check_room_of_all", "decide_drops", "plan_backup"]
