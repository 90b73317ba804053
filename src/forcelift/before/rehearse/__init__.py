"""What a twin of the plan's org can foretell of a load, and what it cannot."""

from forcelift.before.rehearse.shape import bare_document, seed_queries, unknowable

__all__ = ["bare_document", "seed_queries", "unknowable"]
