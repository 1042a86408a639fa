"""report.html of a study: one file with its tables and pictures, which loads nothing."""

from .page import REPORT, write_report
from .prompts_csv import PROMPTS

__all__ = ["PROMPTS", "REPORT", "write_report"]
