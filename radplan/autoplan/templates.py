"""Beam templates: where the beams of a site come from, and on which side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from radplan.errors import InputError, UnknownNameError
from radplan.patient import Patient

_KEYS = ("gantry", "collimator", "couch", "arcs", "lateral")
_LATERAL_OFFSET = 50.0
"""How far from the mid-sagittal plane a target is lateral [mm]."""


@dataclass(frozen=True)
class BeamTemplate:
    """Angles of fixed fields, and of arcs where the technique is an arc.

    Parameters
    ----------
    gantry : tuple of float
        Gantry angles of fixed fields [degree].
    collimator, couch : float
        Angles of all fields [degree].
    arcs : int
        Number of full arcs where arcs are asked for.
    lateral : tuple of float, optional
        Gantry angles for a target that lies more than 50 mm to the patient's left of the mid-sagittal plane; they are
        mirrored for one on the right.

    >>> BeamTemplate((0.0, 120.0, 240.0)).gantry
    (0.0, 120.0, 240.0)
    """

    gantry: tuple[float, ...]
    collimator: float = 0.0
    couch: float = 0.0
    arcs: int = 2
    lateral: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.gantry:
            raise InputError("a beam template needs at least one gantry angle")

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> BeamTemplate:
        """Return the template that plain data describes."""
        for key in spec:
            if key not in _KEYS:
                raise UnknownNameError("key of a beam template", str(key), _KEYS)
        lateral = spec.get("lateral")
        return cls(
            tuple(float(angle) for angle in spec.get("gantry", ())),
            float(spec.get("collimator", 0.0)),
            float(spec.get("couch", 0.0)),
            int(spec.get("arcs", 2)),
            None if lateral is None else tuple(float(angle) for angle in lateral),
        )

    def angles(self, patient: Patient) -> tuple[float, ...]:
        """Return the gantry angles for a patient [degree]."""
        if self.lateral is None:
            return self.gantry
        offset = lateral_offset(patient)
        if abs(offset) <= _LATERAL_OFFSET:
            return self.gantry
        return self.lateral if offset > 0 else tuple((360.0 - angle) % 360.0 for angle in self.lateral)


def lateral_offset(patient: Patient) -> float:
    """Return how far the middle of the targets lies to the left of the middle of the body on their slices [mm]."""
    targets = [patient.structures[name] for name in patient.target_names]
    points = np.concatenate([target.grid.points(target.voxels) for target in targets])
    outline = patient.external
    body = outline.grid.points(outline.voxels)
    held = body[(body[:, 2] >= points[:, 2].min()) & (body[:, 2] <= points[:, 2].max())]
    return float(points[:, 0].mean() - 0.5 * (held[:, 0].min() + held[:, 0].max()))
