"""The page that a person opens first: what a run found, where it fails and what it cost."""

from rayseg.report.page import write_report
from rayseg.report.sensitivity import draw_sensitivity
