"""Copies of the source's tables before a migration."""

from forcelift.before.backup.execute import BackupPlanned, DropDecision, Dropping, decide_drops, plan_backup

__all__ = ["BackupPlanned", "DropDecision", "Dropping", "decide_drops", "plan_backup"]
