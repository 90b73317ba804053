"""What a twin of the plan's org can foretell of a load, and what it cannot."""

from forcelift.before.rehearse.shape import (
    LOOKED_UP,
    Seed,
    bare_document,
    narrowed_picklists,
    seeds,
    unknowable,
    users_document,
)

__all__ = ["LOOKED_UP", "Seed", "bare_document", "narrowed_picklists", "seeds", "unknowable", "users_document"]
