"""Leaf sequencing: from fluence maps to shapes of leaves and monitor units."""

from __future__ import annotations

from radplan.delivery.sequencing.engel import complexity, engel
from radplan.delivery.sequencing.quantise import FluenceMap, fluence_map, quantised
from radplan.delivery.sequencing.runs import arc_of_fluence, fluence_runs
from radplan.delivery.sequencing.sequence import METHODS, SEQUENCERS, sequence
from radplan.delivery.sequencing.shapes import Shapes
from radplan.delivery.sequencing.siochi import siochi
from radplan.delivery.sequencing.sliding_window import Sweep, SweepOptions, sliding_window, swept_fluence
from radplan.delivery.sequencing.xia import xia

__all__ = [
    "METHODS",
    "SEQUENCERS",
    "FluenceMap",
    "Shapes",
    "Sweep",
    "SweepOptions",
    "arc_of_fluence",
    "complexity",
    "engel",
    "fluence_map",
    "fluence_runs",
    "quantised",
    "sequence",
    "siochi",
    "sliding_window",
    "swept_fluence",
    "xia",
]
