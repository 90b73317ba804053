"""What the rows of a plan's tables are like, and what a run would do with each: before anything is sent.

Others use `Profile` and its parts (`records`), as `AuditStore.profile` and `newest_profile` give them back.
"""

from forcelift.before.profile.execute import profile_tables
from forcelift.before.profile.records import (
    Acceptance,
    Action,
    ColumnProfile,
    Example,
    Finding,
    Profile,
    TableProfile,
)
from forcelift.before.profile.world import ProfileWorld

__all__ = [
    "Acceptance",
    "Action",
    "ColumnProfile",
    "Example",
    "Finding",
    "Profile",
    "ProfileWorld",
    "TableProfile",
    "profile_tables",
]
