"""The final report: its figures, and its pages in the structure of the checklist's template."""

from forcelift.after.report.content import Content, Signed, SwitchedOff
from forcelift.after.report.figures import Issue, Performance, Reconciled, ReportFigures, ReportStatus, Said, figures_of
from forcelift.after.report.html_page import html_page
from forcelift.after.report.markdown import markdown
from forcelift.after.report.pdf_page import pdf_page
from forcelift.after.report.words import Language, Words

__all__ = [
    "Content",
    "Issue",
    "Language",
    "Performance",
    "Reconciled",
    "ReportFigures",
    "ReportStatus",
    "Said",
    "Signed",
    "SwitchedOff",
    "Words",
    "figures_of",
    "html_page",
    "markdown",
    "pdf_page",
]
