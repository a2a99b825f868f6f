"""The report of one sweep or of several: a page that loads nothing, and its figures as files.

What a figure shows is computed once, as a `Chart`, from the ledger and the artifacts; plotly draws
it in the page, and matplotlib in files.
"""

from tune.report.report import check_output, make_parts, page_of, write_all_figures
from tune.report.watch import ADDRESS, Pages, make_server

__all__ = [
    "ADDRESS",
    "Pages",
    "check_output",
    "make_parts",
    "make_server",
    "page_of",
    "write_all_figures",
]
