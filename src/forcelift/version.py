"""The version, apart from the package's door: adapters tell it to servers and may import nothing above them."""

from typing import Final

__version__: Final = "0.1.0"
