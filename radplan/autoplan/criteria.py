"""Criteria of scorecards: what is read from a plan, in which unit.

| metric | value |
|---|---|
| ``min_dose``, ``max_dose``, ``mean_dose`` | dose |
| ``dose_at_volume`` | least dose of the hottest part of a volume, given in % or cc |
| ``dose_at_subvolume`` | the same of all but so many cc |
| ``volume_at_dose`` | volume that gets at least a dose |
| ``volume`` | volume |
| ``volume_of_regret`` | volume outside the structure that gets at least a dose |
| ``conformation_number`` | (V_T,RI / V_T) (V_T,RI / V_RI): van 't Riet et al., IJROBP 37 (1997) 731 |
| ``conformity_index`` | V_RI / V_T: RTOG, Shaw et al., IJROBP 27 (1993) 1231 |
| ``homogeneity_index`` | (D_high - D_low) / D_reference |
| ``inhomogeneity_index`` | (maximum - minimum) / mean |
| ``modified_gradient_index`` | V(low) / V(high) |
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from radplan.analysis.metrics import dose_at_cc, dose_at_volume, maximum, mean, minimum, volume_at_dose
from radplan.errors import InputError, UnknownNameError
from radplan.plan import Plan

DOSE_UNITS = ("Gy", "cGy", "%")
VOLUME_UNITS = ("%", "cc")
METRICS = (
    "min_dose", "max_dose", "mean_dose", "dose_at_volume", "dose_at_subvolume", "volume_at_dose", "volume",
    "volume_of_regret", "conformation_number", "conformity_index", "homogeneity_index", "inhomogeneity_index",
    "modified_gradient_index",
)  # fmt: skip
DOSE_INPUT = ("volume_at_dose", "volume_of_regret", "conformation_number", "conformity_index")
"""Metrics that are asked at a dose."""
VOLUME_INPUT = ("dose_at_volume", "dose_at_subvolume")
"""Metrics that are asked at a volume."""
_DOSES = ("min_dose", "max_dose", "mean_dose", "dose_at_volume", "dose_at_subvolume")
_VOLUMES = ("volume_at_dose", "volume", "volume_of_regret")
_OPTIONS: dict[str, dict[str, Any]] = {
    "homogeneity_index": {"high": 2.0, "low": 98.0, "reference": None, "reference_unit": "Gy"},
    "modified_gradient_index": {"high": 100.0, "low": 50.0, "unit": "%"},
}
"""Options of metrics: volumes [%] of the two doses, a reference dose; doses of the two volumes."""


@dataclass(frozen=True)
class Criterion:
    """What one item of a scorecard reads.

    Parameters
    ----------
    structure : str
        Which structure.
    metric : str
        One of `METRICS`.
    input : float, optional
        At which dose or volume, where the metric asks for one.
    input_unit : {"Gy", "cGy", "%", "cc"}, optional
        Its unit; % of the prescription for a dose, of the structure for a volume.
    output_unit : {"Gy", "cGy", "%", "cc"}, optional
        Unit of the value; Gy for doses and % for volumes when left out.
    options : tuple of (str, value)
        Options of the homogeneity and gradient indices.

    >>> Criterion("Lungs", "volume_at_dose", 20.0, "Gy", "%").label
    'Lungs V20Gy [%]'
    """

    structure: str
    metric: str
    input: float | None = None
    input_unit: str | None = None
    output_unit: str | None = None
    options: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise UnknownNameError("scorecard metric", self.metric, METRICS)
        units = DOSE_UNITS if self.metric in DOSE_INPUT else VOLUME_UNITS if self.metric in VOLUME_INPUT else None
        where = f"{self.metric} of {self.structure!r}"
        if units is None:
            object.__setattr__(self, "input", None)
            object.__setattr__(self, "input_unit", None)
        elif self.input is None or not math.isfinite(self.input) or self.input < 0:
            raise InputError(f"{where} needs a number >= 0 as its input, got {self.input!r}")
        elif self.input_unit not in units:
            raise InputError(f"{where} takes an input in {' or '.join(units)}, got {self.input_unit!r}")
        outputs = DOSE_UNITS if self.metric in _DOSES else VOLUME_UNITS if self.metric in _VOLUMES else (None,)
        usual = {"Gy": "Gy", "%": "%"}.get(outputs[0] or "") if self.metric != "volume" else "cc"
        if self.output_unit is None:
            object.__setattr__(self, "output_unit", usual)
        elif outputs == (None,):
            object.__setattr__(self, "output_unit", None)
        elif self.output_unit not in outputs:
            raise InputError(f"{where} is given in {' or '.join(map(str, outputs))}, got {self.output_unit!r}")
        for key, _ in self.options:
            if key not in _OPTIONS.get(self.metric, {}):
                raise UnknownNameError(f"option of {self.metric}", key, _OPTIONS.get(self.metric, {}))

    @property
    def gives_dose(self) -> bool:
        """Whether the value is a dose."""
        return self.metric in _DOSES

    @property
    def label(self) -> str:
        """How tables call it."""
        unit = f" [{self.output_unit}]" if self.output_unit else ""
        amount = "" if self.input is None else f"{self.input:g}{self.input_unit}"
        short = {
            "min_dose": "Dmin", "max_dose": "Dmax", "mean_dose": "Dmean", "dose_at_volume": f"D{amount}",
            "dose_at_subvolume": f"D(V-{amount})", "volume_at_dose": f"V{amount}", "volume": "volume",
            "volume_of_regret": f"regret V{amount}", "conformation_number": f"CN {amount}",
            "conformity_index": f"CI {amount}", "homogeneity_index": "HI", "inhomogeneity_index": "II",
            "modified_gradient_index": "MGI",
        }[self.metric]  # fmt: skip
        return f"{self.structure} {short}{unit}"

    def option(self, key: str) -> Any:
        """Return an option, its usual value when it is not given."""
        return dict(self.options).get(key, _OPTIONS[self.metric][key])

    def dose_level(self, prescription: float | None) -> float:
        """Return the dose that a metric is asked at [Gy]."""
        return _gray(self.input or 0.0, self.input_unit, prescription)

    def own_units(self, prescription: float | None, volume: float) -> float:
        """Return how many of the output unit are 1 Gy, or, of a metric that gives a volume, 1 % of a structure.

        Parameters
        ----------
        prescription : float, optional
            What % of a dose refers to [Gy].
        volume : float
            Of the structure [cm3].

        >>> Criterion("Bowel", "volume_at_dose", 45.0, "Gy", "cc").own_units(None, 200.0)
        2.0
        """
        if self.gives_dose:
            return _in_unit(1.0, self.output_unit, prescription)
        return 1.0 if self.output_unit == "%" else volume / 100.0


def evaluate_criterion(criterion: Criterion, plan: Plan, quantity: str, prescription: float | None) -> float:
    """Return the value of a criterion of a plan, in the criterion's output unit.

    Parameters
    ----------
    criterion : Criterion
        What to read.
    plan : Plan
        From which, course totals.
    quantity : str
        Which dose.
    prescription : float, optional
        What % of a dose refers to [Gy].
    """
    values, weights = plan.structure_values(quantity, criterion.structure)
    volume = plan.patient.structures[criterion.structure].volume / 1000.0
    if criterion.gives_dose:
        dose = _dose(criterion, values, weights, volume)
        return _in_unit(dose, criterion.output_unit, prescription)
    if criterion.metric == "volume":
        return volume if criterion.output_unit == "cc" else 100.0
    if criterion.metric in DOSE_INPUT:
        return _at_dose(criterion, plan, quantity, criterion.dose_level(prescription))
    if criterion.metric == "inhomogeneity_index":
        return (maximum(values, weights) - minimum(values, weights)) / mean(values, weights)
    if criterion.metric == "homogeneity_index":
        given = criterion.option("reference")
        middle = dose_at_volume(values, weights, 50.0)
        reference = middle if given is None else _gray(given, criterion.option("reference_unit"), prescription)
        high, low = (dose_at_volume(values, weights, criterion.option(key)) for key in ("high", "low"))
        return (high - low) / reference if reference else math.nan
    levels = [_gray(criterion.option(key), criterion.option("unit"), prescription) for key in ("low", "high")]
    low_volume, high_volume = (isodose_volume(plan, quantity, level) for level in levels)
    return low_volume / high_volume if high_volume else math.nan


def isodose_volume(plan: Plan, quantity: str, level: float) -> float:
    """Return the volume of all that gets at least a dose [cm3]."""
    return float(np.count_nonzero(plan[quantity] >= level)) * plan.model.grid.voxel_volume / 1000.0


def _dose(criterion: Criterion, values: Any, weights: Any, volume: float) -> float:
    metric, amount = criterion.metric, criterion.input or 0.0
    if metric == "min_dose":
        return minimum(values, weights)
    if metric == "max_dose":
        return maximum(values, weights)
    if metric == "mean_dose":
        return mean(values, weights)
    if metric == "dose_at_subvolume":
        left = volume - (amount if criterion.input_unit == "cc" else amount / 100.0 * volume)
        return dose_at_cc(values, weights, max(left, 0.0), volume)
    if criterion.input_unit == "cc":
        return dose_at_cc(values, weights, amount, volume)
    return dose_at_volume(values, weights, min(amount, 100.0))


def _at_dose(criterion: Criterion, plan: Plan, quantity: str, level: float) -> float:
    values, weights = plan.structure_values(quantity, criterion.structure)
    volume = plan.patient.structures[criterion.structure].volume / 1000.0
    share = volume_at_dose(values, weights, level)
    covered = share / 100.0 * volume
    if criterion.metric == "volume_at_dose":
        return share if criterion.output_unit == "%" else covered
    isodose = isodose_volume(plan, quantity, level)
    if criterion.metric == "volume_of_regret":
        outside = max(isodose - covered, 0.0)
        return outside if criterion.output_unit == "cc" else 100.0 * outside / volume
    if criterion.metric == "conformity_index":
        return isodose / volume
    return covered**2 / (volume * isodose) if isodose else 0.0


def _gray(value: float, unit: str | None, prescription: float | None) -> float:
    if unit == "%":
        if prescription is None:
            raise InputError(f"{value:g} % of the prescription: the scorecard states no prescription_gy")
        return value / 100.0 * prescription
    return value / 100.0 if unit == "cGy" else value


def _in_unit(dose: float, unit: str | None, prescription: float | None) -> float:
    if unit == "%":
        if prescription is None:
            raise InputError("a dose in % of the prescription: the scorecard states no prescription_gy")
        return 100.0 * dose / prescription
    return 100.0 * dose if unit == "cGy" else dose
