"""The report of a sweep: one page that needs nothing but itself, and a picture for a README."""

from isonomy.bench.report.page import render
from isonomy.bench.report.picture import require_picture, save_picture

__all__ = ["render", "require_picture", "save_picture"]
