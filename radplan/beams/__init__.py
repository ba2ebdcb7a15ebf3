"""Beams: angles, an isocentre and the bixels whose weights are optimised; and fields as a linac delivers them."""

from __future__ import annotations

from radplan.beams.arc import place_arc
from radplan.beams.beam import Beam, Beams
from radplan.beams.control_points import ControlPoint, DeliveryPlan, Segment, TreatmentField
from radplan.beams.fields import place_fields
from radplan.beams.place import place_beams

__all__ = [
    "Beam",
    "Beams",
    "ControlPoint",
    "DeliveryPlan",
    "Segment",
    "TreatmentField",
    "place_arc",
    "place_beams",
    "place_fields",
]
