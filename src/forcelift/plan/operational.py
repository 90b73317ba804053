"""Settings that say how a batch is carried out, and not what becomes of a row: a resume may change them.

All else is part of what a batch means, and a resume under another meaning is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

OPERATIONAL = ("limits", "source.limits", "retention.staged_files", "thresholds", "notify", "roles")
"""Keys of the plan with all that is below them."""


def is_operational(change: str) -> bool:
    """Whether a line of `plan_diff`, which begins with the path of what changed, names such a setting only."""
    path = change.partition(":")[0].strip()
    return any(path == key or path.startswith(f"{key}.") for key in OPERATIONAL)


def changes_of_meaning(changes: Sequence[str]) -> list[str]:
    """The changes that a resume cannot take."""
    return [change for change in changes if not is_operational(change)]
