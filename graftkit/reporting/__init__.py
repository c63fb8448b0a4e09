"""What people read of an inspection or a run: terminal tables, the network's picture, DOT text and report.html."""

from graftkit.reporting.dot import network_dot
from graftkit.reporting.page import report_html
from graftkit.reporting.picture import network_svg
from graftkit.reporting.tables import inspection_table, result_table
from graftkit.reporting.values import spending_words, value_table
from graftkit.reporting.verdict import verdict

__all__ = [
    "inspection_table",
    "network_dot",
    "network_svg",
    "report_html",
    "result_table",
    "spending_words",
    "value_table",
    "verdict",
]
