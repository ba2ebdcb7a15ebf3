"""A dose by Monte Carlo with its statistical error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from radplan.geometry.grid import Grid

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SimulatedDose:
    """A Monte Carlo dose with its statistical error.

    Parameters
    ----------
    grid : Grid
        Where it was scored.
    dose, error : array of shape grid.shape
        Dose of a fraction and one standard deviation of it [Gy].
    histories : int
        Simulated primaries.
    seconds : float
        Processor time of the simulation [s].
    told : dict
        What a reader has to know: program, calibration, beam quality of both engines.
    """

    grid: Grid
    dose: Floats
    error: Floats
    histories: int
    seconds: float
    told: dict[str, Any]

    @property
    def statistical_percent(self) -> float:
        """Mean standard deviation where dose is above half of its maximum, over that maximum [%]."""
        high = self.dose > 0.5 * self.dose.max()
        return 100.0 * float(self.error[high].mean() / self.dose.max())
