"""Read, clean and stage: from the source's rows to sealed upload files."""

from forcelift.during.extract.handlers import ExtractHandlers, ExtractWorld

__all__ = ["ExtractHandlers", "ExtractWorld"]
