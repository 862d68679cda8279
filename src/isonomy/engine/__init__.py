"""Task gradients at features or parameters, and the scalar that hands the finished ones to ``backward``."""

from isonomy.engine.gradients import (
    accumulated,
    blocked,
    leaf_gradients,
    measure,
    measure_parting,
    pull,
    rows_at,
    task_gradients,
)
from isonomy.engine.graph import Graph, as_tensors, level_of, trace
from isonomy.engine.handover import hand_over
from isonomy.engine.lean import Lean, lean
from isonomy.engine.segments import pays

__all__ = [
    "Graph",
    "Lean",
    "accumulated",
    "as_tensors",
    "blocked",
    "hand_over",
    "leaf_gradients",
    "lean",
    "level_of",
    "measure",
    "measure_parting",
    "pays",
    "pull",
    "rows_at",
    "task_gradients",
    "trace",
]
