"""What to do about refused rows, whoever refused them: a rule of the plan, or the org."""

from __future__ import annotations

from forcelift.rules.remedies import rule_remedy


def remedy_of(code: str, message: str) -> str:
    """What to do about rows refused with this code, by a rule or by the org."""
    from forcelift.salesforce.catalogue import remedy  # where no row was refused, nobody looks into it

    return rule_remedy(code) or remedy(code, message).remedy
