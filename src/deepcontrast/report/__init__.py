"""One self-contained HTML page about a result, and its figures."""

from deepcontrast.report.data import ReportData
from deepcontrast.report.intensity import intensity_summary
from deepcontrast.report.page import write_report

__all__ = ["ReportData", "intensity_summary", "write_report"]
