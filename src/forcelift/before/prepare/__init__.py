"""Make an org ready for a load: automations off and back, external ID fields."""

from forcelift.before.prepare.execute import Preparer, StillOff
from forcelift.before.prepare.fields import FieldFinding, FieldState, find_fields, key_length, make_field, mapped_fields
from forcelift.before.prepare.history import HistoryFinding, find_history, track_history
from forcelift.before.prepare.plan import Decision, PrepareItem, PreparePlan, plan_prepare
from forcelift.before.prepare.restore import Outcome, RestoredItem

__all__ = [
    "Decision",
    "FieldFinding",
    "FieldState",
    "HistoryFinding",
    "Outcome",
    "PrepareItem",
    "PreparePlan",
    "Preparer",
    "RestoredItem",
    "StillOff",
    "find_fields",
    "find_history",
    "key_length",
    "make_field",
    "mapped_fields",
    "plan_prepare",
    "track_history",
]
