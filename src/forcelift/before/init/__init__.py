"""A first plan from the source's dictionary and the org's describe: every match with its confidence and its reason."""

from forcelift.before.init.draft import DraftColumn, DraftTable, draft_text
from forcelift.before.init.match import Match, match_columns, match_tables, rank_objects

__all__ = ["DraftColumn", "DraftTable", "Match", "draft_text", "match_columns", "match_tables", "rank_objects"]
