"""The preflight scorecard: named checks of machine, source, audit database, org and plan."""

from forcelift.before.check.model import Area, CheckResult, Verdict

__all__ = ["Area", "CheckResult", "Verdict"]
