"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# A busy machine is no fault of what is tested; examples that fail are printed so that they can be run again.
settings.register_profile("forcelift", deadline=None, print_blob=True)
settings.load_profile("forcelift")
