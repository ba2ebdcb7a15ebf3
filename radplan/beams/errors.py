"""Setup and range errors: how a treatment differs from its plan in one case, and beams and fields moved by it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from radplan.arrays import Array, namespace
from radplan.beams.beam import Beams
from radplan.beams.control_points import DeliveryPlan, TreatmentField
from radplan.errors import InputError


@dataclass(frozen=True)
class SetupRangeError:
    r"""What goes wrong in one case: the isocentre lies elsewhere, and radiological depths are misjudged.

    A depth t becomes :math:`t (1 + r) + a`, never below 0: positive errors stop particles short, in front of where the
    plan expects them.

    Parameters
    ----------
    shift : (float, float, float)
        Added to every isocentre, in the world (LPS) [mm]; the patient lies elsewhere by the opposite.
    relative_range : float
        r, > -1 [1].
    absolute_range : float
        a [mm of water].

    Raises
    ------
    InputError
        When a number is not finite, or the relative error leaves no depth.

    Notes
    -----
    The definitions of matRad 3.2.2 (isoShift, relRangeShift, absRangeShift).

    >>> SetupRangeError(relative_range=0.035, absolute_range=1.0).depths(np.asarray([100.0])).tolist()
    [104.49999999999999]
    """

    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    relative_range: float = 0.0
    absolute_range: float = 0.0

    def __post_init__(self) -> None:
        shift = np.asarray(self.shift, dtype=np.float64)
        if shift.shape != (3,) or not np.all(np.isfinite(shift)):
            raise InputError(f"a setup shift is three finite numbers (x, y, z) in mm, got {self.shift!r}")
        object.__setattr__(self, "shift", (float(shift[0]), float(shift[1]), float(shift[2])))
        if not (math.isfinite(self.relative_range) and self.relative_range > -1.0):
            raise InputError(f"a relative range error is a number > -1, got {self.relative_range!r}")
        if not math.isfinite(self.absolute_range):
            raise InputError(f"an absolute range error is a finite number in mm, got {self.absolute_range!r}")

    @property
    def nominal(self) -> bool:
        """Whether nothing is wrong."""
        return self == NOMINAL

    def depths(self, depths: Array) -> Array:
        """Return radiological depths [mm] as they are in this case, in the dtype given."""
        if self.relative_range == 0.0 and self.absolute_range == 0.0:
            return depths
        return namespace(depths).clip(depths * (1.0 + self.relative_range) + self.absolute_range, min=0.0)

    def beams(self, beams: Beams | DeliveryPlan) -> Beams | DeliveryPlan:
        """Return beams or fields with their isocentres where they are in this case."""
        if not any(self.shift):
            return beams
        if isinstance(beams, DeliveryPlan):
            return replace(beams, fields=shifted_fields(beams, self.shift))
        return replace(beams, beams=tuple(replace(beam, isocenter=beam.isocenter + self.shift) for beam in beams))


NOMINAL = SetupRangeError()
"""The case in which nothing is wrong."""


def shifted_fields(fields: Iterable[TreatmentField], shift: npt.ArrayLike) -> tuple[TreatmentField, ...]:
    """Return fields whose isocentres lie elsewhere by a shift (3,) [mm].

    >>> from radplan.beams.control_points import ControlPoint
    >>> points = tuple(ControlPoint(m, 0.0, 0.0, 0.0, [1.0, 2.0, 3.0]) for m in (0.0, 100.0))
    >>> shifted_fields([TreatmentField("AP", 1, points, 1000.0)], [1.0, 0.0, 0.0])[0].points[1].isocenter.tolist()
    [2.0, 2.0, 3.0]
    """
    step = np.asarray(shift, dtype=np.float64)
    return tuple(
        replace(field, points=tuple(replace(point, isocenter=point.isocenter + step) for point in field.points))
        for field in fields
    )
