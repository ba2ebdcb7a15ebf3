"""How near a machine comes to what was measured: depth doses, penumbras, insides and outsides of fields, factors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radplan.commissioning.tank import Floats, OutputFactor, TankData, TankScan
from radplan.commissioning.tank_dose import Predicted

SAD = 1000.0

_INSIDE = 0.8
"""Part of a field's width that counts as inside."""

_OUTSIDE = 10.0
"""How far beyond a field's edge its outside begins, in the isocentre plane [mm]."""

_SHALLOW_DOSE, _SHALLOW_DISTANCE = 0.02, 1.0
"""Criteria before the maximum: of its dose [1], or distance [mm]."""


@dataclass(frozen=True, eq=False)
class CurveFit:
    """A measured curve beside the calculated one, both relative: to the maximum of a depth dose, or to the axis.

    Parameters
    ----------
    scan : TankScan
        What was measured.
    measured, calculated : array of shape (n,)
        At the scan's positions [1].
    figures : dict
        What is judged: of a depth dose ``beyond_percent`` (largest difference beyond the maximum, of its dose) and
        ``before`` (largest difference before it in units of 2 % or 1 mm, whichever is smaller); of a profile
        ``inside_percent``, ``edges_mm`` (largest distance of the 80, 50 and 20 % points), ``penumbra_mm`` (difference
        of the distances from 80 to 20 %) and ``outside_percent``.
    """

    scan: TankScan
    measured: Floats
    calculated: Floats
    figures: dict[str, float]


@dataclass(frozen=True)
class FactorFit:
    """An output factor beside the calculated one, and their difference in percent."""

    factor: OutputFactor
    calculated: float

    @property
    def percent(self) -> float:
        """Calculated over measured, minus 1 [%]."""
        return 100.0 * (self.calculated / self.factor.value - 1.0)


def relative(scan: TankScan, dose: Floats) -> Floats:
    """Return a curve of a scan over its dose at 10 cm depth, or on the axis; a mean over 1 cm smooths noise."""
    at = 100.0 if scan.curve == "depth dose" else 0.0
    near = np.linspace(at - 5.0, at + 5.0, 21)
    return np.asarray(dose / np.interp(near, scan.position, dose).mean())


def outside(scan: TankScan) -> npt.NDArray[np.bool_]:
    """Return which points of a profile lie outside the field, 10 mm and more from its edge in the isocentre plane."""
    stretch, half = _stretch(scan), 0.5 * width(scan)
    return np.abs(scan.position) / stretch > half + _OUTSIDE


def width(scan: TankScan) -> float:
    """Return the width of the field along a profile, in the isocentre plane [mm]."""
    return scan.field[1 if scan.curve == "inplane" else 0]


def _stretch(scan: TankScan) -> float:
    return (scan.ssd + (scan.depth or 0.0)) / SAD


def curve_fits(data: TankData, result: Predicted) -> tuple[CurveFit, ...]:
    """Return all curves beside the calculated ones."""
    return tuple(_curve_fit(scan, dose) for scan, dose in zip(data.scans, result.curves, strict=True))


def factor_fits(data: TankData, result: Predicted) -> tuple[FactorFit, ...]:
    """Return all output factors beside the calculated ones."""
    return tuple(FactorFit(f, float(v)) for f, v in zip(data.output_factors, result.factors, strict=True))


def _curve_fit(scan: TankScan, dose: Floats) -> CurveFit:
    if scan.curve == "depth dose":
        return _depth_dose(scan, scan.dose / scan.dose.max(), dose / dose.max())
    return _profile(scan, relative(scan, scan.dose), relative(scan, dose))


def _depth_dose(scan: TankScan, measured: Floats, calculated: Floats) -> CurveFit:
    peak = scan.position[np.argmax(measured)]
    beyond = scan.position >= peak
    error = calculated - measured
    before = 0.0
    for index in np.flatnonzero(~beyond):
        fine = np.linspace(0.0, peak, 2000)
        curve = np.interp(fine, scan.position, calculated)
        distance = np.abs(fine - scan.position[index])[np.abs(curve - measured[index]) < 0.003]
        apart = distance.min() if distance.size else np.inf
        before = max(before, min(abs(error[index]) / _SHALLOW_DOSE, apart / _SHALLOW_DISTANCE))
    figures = {"beyond_percent": 100.0 * float(np.abs(error[beyond]).max()), "before": float(before)}
    return CurveFit(scan, measured, calculated, figures)


def _profile(scan: TankScan, measured: Floats, calculated: Floats) -> CurveFit:
    half = 0.5 * width(scan)
    error = np.abs(calculated - measured)
    inside = error[np.abs(scan.position) / _stretch(scan) < _INSIDE * half]
    edges, penumbras = [], []
    for side in (-1.0, 1.0):
        seen = scan.position * side > 0.3 * half
        x = (scan.position * side)[seen]
        order = np.argsort(x)
        known, ours = (_levels(x[order], curve[seen][order]) for curve in (measured, calculated))
        edges.append(np.abs(ours - known).max())
        penumbras.append((ours[2] - ours[0]) - (known[2] - known[0]))
    figures = {
        "inside_percent": 100.0 * float(inside.max()),
        "edges_mm": float(np.max(edges)),
        "penumbra_mm": float(penumbras[int(np.argmax(np.abs(penumbras)))]),
        "outside_percent": 100.0 * float(error[outside(scan)].max(initial=0.0)),
    }
    return CurveFit(scan, measured, calculated, figures)


def _levels(x: Floats, curve: Floats) -> Floats:
    """Return where a falling curve passes 80, 50 and 20 % of the axis."""
    return np.asarray([np.interp(-level, -curve, x) for level in (0.8, 0.5, 0.2)])
