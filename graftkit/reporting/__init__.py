"""What people read of an inspection or a run: terminal tables, the network's picture, DOT text and report.html."""

from graftkit.reporting.dendrite_files import dendrite_file_table
from graftkit.reporting.dot import network_dot
from graftkit.reporting.fronts import front_table, settings_words, sweep_words
from graftkit.reporting.gates import gate_table
from graftkit.reporting.metrics import metrics
from graftkit.reporting.page import report_html
from graftkit.reporting.picture import network_svg
from graftkit.reporting.runtimes import runtimes_table
from graftkit.reporting.tables import inspection_table, result_table
from graftkit.reporting.values import spending_words, value_table
from graftkit.reporting.verdict import verdict

__all__ = [
    "dendrite_file_table",
    "front_table",
    "gate_table",
    "inspection_table",
    "metrics",
    "network_dot",
    "network_svg",
    "report_html",
    "result_table",
    "runtimes_table",
    "settings_words",
    "spending_words",
    "sweep_words",
    "value_table",
    "verdict",
]
