"""Scores of predicted dose: OpenKBP's dose and DVH scores, as the challenge defines them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radplan.errors import InputError

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating]

ORGAN_METRICS = ("D_0.1_cc", "mean")
TARGET_METRICS = ("D_99", "D_95", "D_1")


@dataclass(frozen=True)
class PatientScore:
    """How far a predicted dose is from the planned one in a patient.

    Parameters
    ----------
    name : str
        The patient's.
    dose : float
        Mean absolute difference in the dose mask [Gy].
    dvh : mapping of str to float
        Absolute difference [Gy] of each metric of each structure, such as ``"PTV70 D_95"``.
    """

    name: str
    dose: float
    dvh: Mapping[str, float]


def dose_metrics(dose: Floats, mask: Mask, voxel_volume: float, target: bool) -> dict[str, float]:
    """Return the challenge's metrics of one structure [Gy].

    Organs: dose to the hottest 0.1 cm3, as the percentile 100 - 100 max(1, round(100/v))/n of the n voxels of v mm3,
    and the mean. Targets: D_99, D_95, D_1, as the percentiles 1, 5 and 99; linear interpolation between voxels.

    Source: Babier et al., Med. Phys. 48 (2021) 5549; the challenge's published code.

    >>> dose = np.arange(101.0)
    >>> dose_metrics(dose, dose >= 0, 27.0, target=True)
    {'D_99': 1.0, 'D_95': 5.0, 'D_1': 99.0}
    >>> {key: round(value, 6) for key, value in dose_metrics(dose, dose >= 0, 27.0, target=False).items()}
    {'D_0.1_cc': 96.039604, 'mean': 50.0}
    """
    values = dose[mask]
    if values.size == 0:
        raise InputError("a structure without voxels has no dose")
    if target:
        low, cold, hot = np.percentile(values, (1.0, 5.0, 99.0))
        return {"D_99": float(low), "D_95": float(cold), "D_1": float(hot)}
    hottest = max(1, round(100.0 / voxel_volume))
    percentile = max(0.0, 100.0 - 100.0 * hottest / values.size)
    return {"D_0.1_cc": float(np.percentile(values, percentile)), "mean": float(values.mean())}


def patient_score(
    name: str,
    predicted: Floats,
    planned: Floats,
    dose_mask: Mask,
    structures: Mapping[str, Mask],
    targets: Sequence[str],
    voxel_volume: float,
) -> PatientScore:
    """Return the differences of two doses [Gy] on one grid, both taken as 0 outside the dose mask.

    Structures without voxels are left out.
    """
    shapes = {predicted.shape, planned.shape, dose_mask.shape}
    if len(shapes) != 1 or not dose_mask.any():
        raise InputError(f"{name}: doses and a dose mask that is not empty must have one shape, got {sorted(shapes)}")
    given, wanted = predicted * dose_mask, planned * dose_mask
    difference = float(np.abs(given - wanted).sum() / dose_mask.sum())
    dvh = {}
    for structure, mask in structures.items():
        if mask.any():
            got = dose_metrics(given, mask, voxel_volume, structure in targets)
            aim = dose_metrics(wanted, mask, voxel_volume, structure in targets)
            dvh.update({f"{structure} {key}": abs(got[key] - aim[key]) for key in got})
    return PatientScore(name, difference, dvh)


def scores(patients: Sequence[PatientScore]) -> tuple[float, float]:
    """Return the dose score and the DVH score of a set of patients [Gy]; smaller is better.

    The dose score is the mean over patients, the DVH score the mean over all metrics of all structures of all patients.

    >>> first, second = PatientScore("a", 2.0, {"Cord mean": 1.0}), PatientScore("b", 4.0, {"x": 2.0, "y": 3.0})
    >>> scores([first, second])
    (3.0, 2.0)
    """
    if not patients:
        raise InputError("there is no patient to score")
    return (
        float(np.mean([patient.dose for patient in patients])),
        float(np.mean([value for patient in patients for value in patient.dvh.values()])),
    )
