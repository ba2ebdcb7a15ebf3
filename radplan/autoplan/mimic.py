"""Dose to plan: a plan that reproduces a given dose, such as a network's or an earlier plan's.

Every voxel is asked for the given dose: inside targets both sides count, too little more than too much, in organs both
sides alike, elsewhere what is too much and, a little, what is too little. Organs are asked for their mean besides. The
goals are convex, so that the plan does not depend on where the search starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

from radplan.analysis.gamma import Gamma, GammaCriteria, gamma_index
from radplan.analysis.metrics import metric
from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.geometry.resample import resample_linear
from radplan.influence import ForwardModel
from radplan.optim import DoseMimicking, Goal, Mean
from radplan.optim.solvers import ProjectedLBFGS
from radplan.patient import Patient, Structures, intersection
from radplan.patient.sampling import sample, structure_points
from radplan.plan import Plan, optimize

Floats = npt.NDArray[np.float64]

METRICS = ("D98", "D95", "D50", "D2", "Dmean")
"""What the table of a reproduction compares."""
_TARGET, _COVER = 100.0, 30.0
"""Weight of a voxel of a target over one outside, and of too little dose there over too much [1].

On OpenKBP's patients pt_204 and pt_219 ten for the first and one for the second left D95 3.6 Gy below the given dose.
"""
_ORGAN, _MEAN = 10.0, 1.0
"""Weight of a voxel of an organ over one outside, and of the squared difference of its mean [1]."""
_TOO_LITTLE = 0.1
"""Weight of too little dose outside targets and organs over too much [1]."""


@dataclass(frozen=True)
class MimicRow:
    """One structure: the metrics of the given dose and of the plan [Gy]."""

    structure: str
    reference: dict[str, float]
    plan: dict[str, float]

    def difference(self, name: str) -> float:
        """Return plan less reference [Gy]."""
        return self.plan[name] - self.reference[name]


@dataclass(frozen=True, eq=False)
class Mimicry:
    """A plan made from a dose, and how near it comes.

    Parameters
    ----------
    plan : Plan
        The plan.
    rows : tuple of MimicRow
        By structure.
    gamma : Gamma
        3 % of the largest given dose, 3 mm, above 10 %.
    """

    plan: Plan
    rows: tuple[MimicRow, ...]
    gamma: Gamma

    def table(self) -> str:
        """Return reference, reproduction and difference as text in 80 columns."""
        lines = [f"{'[Gy] given;plan':<15}" + "".join(f"{name:>13}" for name in METRICS)]
        lines += [
            f"{row.structure:<15.15}" + "".join(f"{row.reference[m]:>7.2f};{row.plan[m]:>5.2f}" for m in METRICS)
            for row in self.rows
        ]
        return "\n".join([*lines, f"gamma {self.gamma.criteria}: {self.gamma.passing:.1f} % pass"])


def plan_from_dose(
    dose: npt.ArrayLike,
    grid: Grid,
    model: ForwardModel,
    patient: Patient,
    fractions: int,
    iterations: int = 300,
    targets: Sequence[str] | None = None,
    known: str | None = None,
) -> Mimicry:
    """Return the plan of a model that comes nearest to a given dose.

    Parameters
    ----------
    dose : array of shape (nz, ny, nx)
        Course total to reproduce [Gy].
    grid : Grid
        Where it is given; it is brought to the model's grid by trilinear interpolation.
    model : ForwardModel
        What gives dose.
    patient : Patient
        With structures.
    fractions : int
        Number of fractions.
    iterations : int
        Most iterations of the solver.
    targets : sequence of str, optional
        Where both sides count; the patient's targets when left out.
    known : str, optional
        The structure in which the dose is given, such as OpenKBP's dose mask: structures count within it alone, since
        a dose of 0 beyond it says nothing.

    Raises
    ------
    InputError
        When the dose has another shape than its grid, or is negative or not finite.
    """
    given = np.asarray(dose, dtype=np.float64)
    if given.shape != grid.shape:
        raise InputError(f"the dose has shape {given.shape}, its grid {grid.shape}")
    if not np.all(np.isfinite(given)) or given.min() < 0.0:
        raise InputError("the dose to reproduce must be finite and >= 0 everywhere")
    judged, region = patient, None
    if known is not None:
        judged, region = _within(patient, known), np.zeros(grid.shape, dtype=bool)
        region.reshape(-1)[patient.structure_weights(known, grid)[0]] = True
        given = _drawn_out(given, grid, region)
    there = given if grid == model.grid else np.asarray(resample_linear(given, grid, model.grid))
    goals = mimicking_goals(there, model, judged, targets)
    plan = optimize(
        model, goals, judged, fractions=fractions, solver=ProjectedLBFGS(max_iterations=iterations, tolerance=1e-6)
    )
    return compare_to_dose(plan, given, grid, region)


def mimicking_goals(
    dose: Floats, model: ForwardModel, patient: Patient, targets: Sequence[str] | None = None
) -> tuple[Goal, ...]:
    """Return goals that ask every voxel of the model for a dose (nz, ny, nx) on its grid [Gy]."""
    names = list(patient.target_names if targets is None else targets)
    outside = patient.external.name
    if outside not in patient.structures:
        raise InputError(f"patient {patient.name!r} needs an external contour among its structures to mimic a dose in")
    whole = patient.structures[outside].volume
    organs = [
        name
        for name, structure in patient.structures.items()
        if structure.role == "oar" and structure.voxels.size and name not in names
    ]
    goals = [
        Goal(name, DoseMimicking(dose, underdosing=_COVER), weight=_TARGET * patient.structures[name].volume / whole)
        for name in names
    ]
    contenders = [*names, *organs, outside]
    for name in organs:
        try:
            # Why overlap: the goal sees what is left of the organ, and its level must be the mean of just that.
            voxels, weights = patient.structure_weights(name, model.grid, np.asarray(model.voxels), contenders)
        except InputError:  # all of it belongs to targets, or none of it gets dose: nothing to ask for
            continue
        mean = float(weights @ dose.reshape(-1)[voxels])
        goals.append(Goal(name, DoseMimicking(dose), weight=_ORGAN * patient.structures[name].volume / whole))
        goals.append(Goal(name, Mean(mean, form="quadratic"), weight=_MEAN))
    goals.append(Goal(outside, DoseMimicking(dose, underdosing=_TOO_LITTLE), weight=1.0))
    return tuple(goals)


def _drawn_out(dose: Floats, grid: Grid, region: npt.NDArray[np.bool_]) -> Floats:
    """Return a dose that goes on beyond the region in which it is given: there, that of the nearest voxel inside.

    A dose of 0 beyond it would be mixed into all that is interpolated near its surface.
    """
    nearest = distance_transform_edt(~region, sampling=grid.spacing[::-1], return_distances=False, return_indices=True)
    return np.asarray(dose[tuple(nearest)])


def _within(patient: Patient, known: str) -> Patient:
    """Return the patient with every structure cut to one of them; what is left of none is left out."""
    region = patient.structure(known)
    kept = []
    for structure in patient.structures.values():
        inside = intersection(structure, region, name=structure.name)
        if inside.voxels.size:
            kept.append(replace(structure, voxels=inside.voxels, fraction=inside.fraction))
    return replace(patient, structures=Structures(kept))


def compare_to_dose(plan: Plan, dose: Floats, grid: Grid, region: npt.NDArray[np.bool_] | None = None) -> Mimicry:
    """Return how near a plan comes to a dose (nz, ny, nx) on a grid [Gy], on what both cover; gamma in a region."""
    rows = []
    for name, found in plan.metrics(plan.prescribed, names=METRICS).items():
        structure = plan.patient.structures[name]
        index, weights = structure_points(structure, grid)
        both = _covered(index, grid, plan.model.grid)
        index, weights = index[both], weights[both] / weights[both].sum()
        values = sample(dose, index)
        reference = {m: metric(m, values, weights, structure.volume / 1000.0) for m in METRICS}
        rows.append(MimicRow(name, reference, dict(found)))
    gamma = gamma_index(plan[plan.prescribed], plan.model.grid, dose, grid, GammaCriteria(3.0, 3.0), region)
    return Mimicry(plan, tuple(rows), gamma)


def _covered(index: Floats, grid: Grid, other: Grid) -> npt.NDArray[np.bool_]:
    """Return which fractional indices [z, y, x] into a grid (m, 3) lie in the boxes of another grid's voxels (m,)."""
    step, origin = (np.asarray(values)[::-1] for values in (grid.spacing, grid.origin))
    there = (origin + index * step - np.asarray(other.origin)[::-1]) / np.asarray(other.spacing)[::-1]
    return np.asarray(np.all((there >= -0.5 - 1e-6) & (there <= np.asarray(other.shape) - 0.5 + 1e-6), axis=1))
