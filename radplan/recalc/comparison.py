"""A calculated dose beside a reference: dose-volume numbers, gamma, and the one factor that would fit."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from radplan.analysis.dvh import DVH, common_levels, cumulative_dvh
from radplan.analysis.gamma import Gamma, GammaCriteria, gamma_index
from radplan.analysis.metrics import metric
from radplan.errors import InputError, UnknownNameError
from radplan.geometry.grid import Grid
from radplan.io.reference import ReferenceDose, read_curve
from radplan.patient.patient import Patient
from radplan.patient.sampling import sample, structure_points
from radplan.plan import Plan

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]

METRICS = ("Dmean", "D95", "D50", "D2")
"""What is compared of every structure."""


@dataclass(frozen=True)
class StructureComparison:
    """Numbers of one structure, course totals [Gy].

    Parameters
    ----------
    structure : str
        Its name in the patient.
    role : str
        Its role there.
    named : str
        Its name in the reference.
    ours, reference : mapping of str to float
        Metric -> value [Gy].

    >>> StructureComparison("PTV", "target", "ptv", {"Dmean": 51.0}, {"Dmean": 50.0}).difference("Dmean", 0.98)
    -0.02
    """

    structure: str
    role: str
    named: str
    ours: Mapping[str, float]
    reference: Mapping[str, float]

    def difference(self, name: str, factor: float = 1.0) -> float:
        """Return a factor times ours less the reference [Gy]."""
        return round(factor * self.ours[name] - self.reference[name], 6)


@dataclass(frozen=True, eq=False)
class Comparison:
    """A calculated dose beside a reference.

    Parameters
    ----------
    label : str
        What the reference is called.
    rows : tuple of StructureComparison
        One per structure that both have.
    curves : mapping of str to DVH
        The reference's DVHs by the patient's names.
    gamma : Gamma, optional
        Where the reference is a dose.
    dose : array of shape of the dose grid, optional
        The reference dose on the calculation's grid, a course total, 0 where it has none [Gy].
    fitted_to : str
        Structure whose mean gives the factor, or empty.
    factor : float, optional
        What the calculated dose would have to be multiplied with for that mean to agree.
    quantity : str
        What is compared: ``"physical_dose"``, or ``"rbe_x_dose"`` with dose weighted by biological effectiveness.
    """

    label: str
    rows: tuple[StructureComparison, ...]
    curves: Mapping[str, DVH] = field(repr=False)
    gamma: Gamma | None = None
    dose: Floats | None = field(default=None, repr=False)
    fitted_to: str = ""
    factor: float | None = None
    quantity: str = "physical_dose"

    def row(self, structure: str) -> StructureComparison:
        """Return the numbers of a structure of the patient."""
        found = {row.structure: row for row in self.rows}
        if structure not in found:
            raise UnknownNameError("structure that the reference has too", structure, found)
        return found[structure]


def compare(
    plan: Plan,
    reference: ReferenceDose,
    names: Mapping[str, str] | None = None,
    fit: bool | str = False,
    criteria: GammaCriteria | None = None,
    skin: float = 0.0,
    quantity: str = "physical_dose",
) -> Comparison:
    """Return a plan's dose beside a reference.

    Parameters
    ----------
    plan : Plan
        The calculated dose.
    reference : ReferenceDose
        What to put beside it.
    names : mapping of str to str, optional
        What the reference's table calls our structures; of others those of the same name are compared, upper and lower
        case and signs apart.
    fit : bool or str
        Whether to give the factor that makes the mean dose of the largest target, or of the structure named, agree.
    criteria : GammaCriteria, optional
        3 %/3 mm above 10 % otherwise.
    skin : float
        Gamma is judged this deep and deeper below the external contour [mm].
    quantity : str
        Which of the plan's doses is compared.

    Raises
    ------
    UnknownNameError
        When a structure named is not there.
    InputError
        When plan and reference have no structure in common and no dose is given.
    """
    image = reference.dose
    pairs = _pairs(plan, reference, names or {})
    curves = {ours: reference.curves[theirs] for ours, theirs in pairs.items()}
    sampled: dict[str, tuple[Floats, Floats]] = {}
    course = None
    if image is not None:
        course = image.dose * (plan.fractions if image.summation == "FRACTION" else 1)
        drawn, sampled = _drawn(plan, course, image.grid, quantity)
        curves = drawn | curves
        pairs = {name: name for name in drawn} | pairs
    if not curves and image is None:
        raise InputError(
            f"the reference holds {', '.join(reference.curves)} and the patient {', '.join(plan.patient.structures)}: "
            "say which belong together (names=, --names OURS=THEIRS)"
        )
    known = set(reference.curves)
    rows = tuple(
        _row(plan, name, pairs[name], curves[name], None if pairs[name] in known else sampled.get(name), quantity)
        for name in plan.patient.structures
        if name in curves
    )
    fitted, factor = fitted_factor(plan, rows, fit)
    gamma = None if image is None or course is None else _gamma(plan, course, image.grid, criteria, skin, quantity)
    return Comparison(
        reference.label,
        rows,
        curves,
        gamma,
        None if image is None or course is None else _on_grid(course, image.grid, plan.model.grid),
        fitted,
        factor,
        quantity,
    )


def _pairs(plan: Plan, reference: ReferenceDose, names: Mapping[str, str]) -> dict[str, str]:
    """Return the name of each of our structures in the reference's table."""
    for ours, theirs in names.items():
        if ours not in plan.patient.structures:
            raise UnknownNameError("structure of the patient", ours, plan.patient.structures)
        if theirs not in reference.curves:
            raise UnknownNameError("structure in the reference", theirs, reference.curves)
    folded = {_folded(name): name for name in reference.curves}
    alike = {s.name: folded[_folded(s.name)] for s in plan.patient.structures.values() if _folded(s.name) in folded}
    return {**alike, **names}


def _folded(name: str) -> str:
    return "".join(sign for sign in name.casefold() if sign.isalnum())


def _drawn(
    plan: Plan, dose: Floats, grid: Grid, quantity: str
) -> tuple[dict[str, DVH], dict[str, tuple[Floats, Floats]]]:
    """Return DVHs, and values with weights, of a dose in the patient's structures that lie on its grid."""
    values: dict[str, tuple[Floats, Floats]] = {}
    for structure in plan.patient.structures.values():
        index, weights = structure_points(structure, grid)
        if structure.role != "ignored" and weights.sum() > 0.99:
            values[structure.name] = sample(dose, index), weights
    if not values:
        return {}, {}
    levels = common_levels({name: pair[0] for name, pair in values.items()})
    volumes = {name: plan.patient.structures[name].volume / 1000.0 for name in values}
    curves = {
        name: DVH(name, quantity, plan.unit(quantity), levels, cumulative_dvh(*pair, levels), volumes[name])
        for name, pair in values.items()
    }
    return curves, values


def _row(
    plan: Plan, name: str, named: str, curve: DVH, sampled: tuple[Floats, Floats] | None, quantity: str
) -> StructureComparison:
    values, weights = plan.structure_values(quantity, name)
    ours = {kind: metric(kind, values, weights) for kind in METRICS}
    if sampled is None:
        theirs = {kind: read_curve(curve, kind) for kind in METRICS}
    else:
        theirs = {kind: metric(kind, *sampled) for kind in METRICS}
    return StructureComparison(name, plan.patient.structures[name].role, named, ours, theirs)


def fitted_factor(plan: Plan, rows: Sequence[StructureComparison], fit: bool | str) -> tuple[str, float | None]:
    """Return the structure whose mean dose is fitted, and the factor; an empty name and None where `fit` is False.

    Parameters
    ----------
    plan : Plan
        The calculated dose.
    rows : sequence of StructureComparison
        What is compared.
    fit : bool or str
        True for the largest target, or a structure's name.

    Raises
    ------
    UnknownNameError
        When the structure named is not compared.
    InputError
        When no target is, or one of the two means is not a dose > 0.
    """
    if fit is False:
        return "", None
    if isinstance(fit, str):
        chosen = fit
        if chosen not in {row.structure for row in rows}:
            raise UnknownNameError("structure to fit the factor to", chosen, (row.structure for row in rows))
    else:
        targets = [row.structure for row in rows if row.role == "target"]
        if not targets:
            raise InputError(
                f"no target is among the compared structures ({', '.join(row.structure for row in rows)}): name the "
                "one whose mean the factor shall fit (fit_factor=, --fit-factor NAME)"
            )
        chosen = max(targets, key=lambda name: plan.patient.structures[name].volume)
    row = next(row for row in rows if row.structure == chosen)
    ours, theirs = row.ours["Dmean"], row.reference["Dmean"]
    if not (np.isfinite([ours, theirs]).all() and ours > 0.0 and theirs > 0.0):
        raise InputError(
            f"no factor fits the mean dose of {chosen!r}: it is {ours:g} Gy here and {theirs:g} Gy in the reference, "
            "expected two doses > 0 (a curve that does not fall to 0 has no mean): name another structure"
        )
    return chosen, theirs / ours


def _gamma(plan: Plan, course: Floats, grid: Grid, criteria: GammaCriteria | None, skin: float, quantity: str) -> Gamma:
    region = inside_by(plan.patient, grid, skin)
    return gamma_index(plan[quantity], plan.model.grid, course, grid, criteria, region)


def inside_by(patient: Patient, grid: Grid, depth: float) -> npt.NDArray[np.bool_]:
    """Return which voxel centres of a grid lie inside the external contour, that deep [mm] or deeper below it."""
    from scipy.ndimage import distance_transform_edt

    outline = patient.external
    # Why: the skin is where the contour ends, not where the images end.
    mask = np.pad(outline.mask(), ((1, 1), (1, 1), (1, 1)), mode="edge")
    mask[:, [0, -1], :] = mask[:, :, [0, -1]] = False
    distance = distance_transform_edt(mask, sampling=outline.grid.spacing[::-1])[1:-1, 1:-1, 1:-1]
    index = outline.grid.index(grid.points())
    found = sample(distance, index)
    low, high = outline.grid.bounds
    held = np.all((grid.points() >= low) & (grid.points() <= high), axis=1)
    return np.asarray(held & (found > 0.0) & (found >= depth), dtype=np.bool_).reshape(grid.shape)


def _on_grid(dose: Floats, grid: Grid, to: Grid) -> Floats:
    from radplan.geometry.resample import resample_linear

    return np.asarray(resample_linear(dose, grid, to))
