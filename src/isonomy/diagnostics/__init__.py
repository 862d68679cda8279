"""Looking at balanced training. Figures and the report need ``isonomy[plot]``; imports the core, never the reverse."""

from isonomy.diagnostics.findings import Finding, findings
from isonomy.diagnostics.invariance import invariance
from isonomy.diagnostics.monitor import Monitor
from isonomy.diagnostics.probe import probe
from isonomy.diagnostics.recording import Recording, load

__all__ = ["Finding", "Monitor", "Recording", "findings", "invariance", "load", "probe"]
