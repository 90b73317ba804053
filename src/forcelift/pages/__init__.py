"""What our HTML pages share: one file, no script, nothing fetched, light and dark; and plots as SVG inside them."""

from forcelift.pages.frame import document, with_code
from forcelift.pages.shares import shares
from forcelift.pages.style import STYLE

__all__ = ["STYLE", "document", "shares", "with_code"]
