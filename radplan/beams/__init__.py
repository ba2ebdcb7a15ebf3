"""Beams: gantry, couch and collimator angles, an isocentre, and the bixels whose weights are optimised."""

from __future__ import annotations

from radplan.beams.beam import Beam, Beams
from radplan.beams.place import place_beams

__all__ = ["Beam", "Beams", "place_beams"]
