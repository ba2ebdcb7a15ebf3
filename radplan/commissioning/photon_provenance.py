"""Where the numbers of a commissioned linac come from, as plain data for its machine file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from radplan.commissioning.agreement import CurveFit, FactorFit
from radplan.commissioning.photon_parameters import FittedParameter
from radplan.machines.generate.photon import PhotonModel
from radplan.machines.generate.simulated_kernel import KERNEL_SOURCES


def provenance_of(
    model: PhotonModel,
    parameters: Iterable[FittedParameter],
    curves: Iterable[CurveFit],
    factors: Iterable[FactorFit],
    undetermined: Iterable[str],
    start: str,
) -> dict[str, Any]:
    """Return what was measured, what was fitted, how well it agrees, and what stays open."""
    return {
        "made_by": "radplan commission photons",
        "model": asdict(model),
        "start": start,
        "kernel": KERNEL_SOURCES[model.kernel],
        "calibration": f"{model.dose_per_mu} Gy/MU, 10x10 cm at the surface, SSD 100 cm, d_max; not measured",
        "parameters": {
            p.name: {
                "value": p.value,
                "uncertainty": p.uncertainty,
                "unit": p.unit,
                "usual": p.usual,
                "determined": p.determined,
            }
            for p in parameters
        },
        "curves": {
            fit.scan.label: {"origin": fit.scan.origin, "detector": fit.scan.detector, **fit.figures} for fit in curves
        },
        "output_factors": {
            fit.factor.label: {"measured": fit.factor.value, "calculated": fit.calculated, "percent": fit.percent}
            for fit in factors
        },
        "undetermined": list(undetermined),
    }
