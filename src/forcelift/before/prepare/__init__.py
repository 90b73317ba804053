"""Make an org ready for a load: automations off and back, external ID fields."""

from forcelift.before.prepare.execute import Preparer, StillOff
from forcelift.before.prepare.fields import FieldFinding, FieldState, find_fields, key_length, make_field
from forcelift.before.prepare.plan import Decision, PrepareItem, PreparePlan, plan_prepare
from forcelift.before.prepare.restore import Outcome, RestoredItem

__all__ = [
    "Decision",
    "FieldFinding",
    "FieldState",
    "Outcome",
    "PrepareItem",
    "PreparePlan",
    "Preparer",
    "RestoredItem",
    "StillOff",
    "find_fields",
    "key_length",
    "make_field",
    "plan_prepare",
]
