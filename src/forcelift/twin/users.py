"""The org's users, as rows of the standard object `User`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """Who can sign in. `permissions` are names such as `bulk_hard_delete` and `manage_data_integrations`."""

    id: str
    username: str
    name: str
    email: str
    active: bool
    permissions: frozenset[str]
