"""The plan file: what is moved from where to where, by which rules."""

from forcelift.plan.as_begun import with_tables
from forcelift.plan.document import plan_diff, plan_document
from forcelift.plan.load import LoadedPlan, load_plan
from forcelift.plan.models import Plan, TablePlan
from forcelift.plan.order import TableGroup, load_order
from forcelift.plan.unsupported import unsupported
from forcelift.plan.urls import masked_url

__all__ = [
    "LoadedPlan",
    "Plan",
    "TableGroup",
    "TablePlan",
    "load_order",
    "load_plan",
    "masked_url",
    "plan_diff",
    "plan_document",
    "unsupported",
    "with_tables",
]
