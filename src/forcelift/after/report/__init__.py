"""The final report of a batch: its figures, and the page in the structure of the checklist's template."""

from forcelift.after.report.figures import Issue, Performance, Reconciled, ReportFigures, ReportStatus, figures_of
from forcelift.after.report.markdown import markdown

__all__ = ["Issue", "Performance", "Reconciled", "ReportFigures", "ReportStatus", "figures_of", "markdown"]
