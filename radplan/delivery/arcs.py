"""Arcs from goals: column generation, row descent, leaf ends through their trajectories, and the exact engine.

Choices of leaves are a combinatorial problem on a cheap matrix, positions of leaves a smooth one, physics is the last
step. Whatever comes out keeps the limits of the machine and a budget of time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import threadpoolctl

from radplan import arrays
from radplan.beams.arc import arc_angles
from radplan.beams.control_points import DeliveryPlan
from radplan.beams.place import target_center
from radplan.delivery.arc_bixels import Arc, arc_bixels
from radplan.delivery.arc_cost import ArcCost
from radplan.delivery.arc_matrix import arc_matrix
from radplan.delivery.arc_search import COARSE_RAYS, ArcSearch
from radplan.delivery.check import check_delivery
from radplan.delivery.rounding import rounded_plan
from radplan.engines import aperture_model
from radplan.errors import InputError
from radplan.machines.limits import MachineLimits, machine_limits
from radplan.machines.mlc import MLC
from radplan.machines.photon import PhotonMachine
from radplan.optim import Goal
from radplan.patient.patient import Patient
from radplan.progress import Choice, listening, report

Floats = npt.NDArray[np.float64]
_ALONE, _COLLIMATORS = (45.0,), (15.0, 345.0, 45.0, 315.0)
"""Collimator angles of a single arc, and of several, when none are given [degree].

On the C-shape of TG-119 they gave better plans than 0 and 90: rows of leaves then cross the axis of the patient.
"""

_SECONDS = 140.0
"""Time of one arc when none is given [s]."""

_PENALTIES: tuple[float | None, ...] = (0.0, 0.0, 0.0, 0.005, 0.02, 0.1, 0.5, None, None, None)
"""Rising cost of leaves that go too far, per sweep, over the cost's own scale; None: they do not."""

_ROUNDS = ((60, 3), (50, 3), (50, 0))
"""Iterations on leaf ends and sweeps over rows between one correction for the exact engine and the next."""

_ROUNDS_OF_START = ((7, 20), (10, 20), (10, 10))
"""The same from a start, sweeps first: it has its shapes, and lacks what the sweeps do for them.

Half of the usual iterations. Leaf ends before the correction for the exact engine, or before the monitor units of the
start are solved for, are lost work: a network's arc needed 34 iterations for what 17 give now.
"""

_SPARE_RATE = 1.12
"""Dose rate kept for the last scaling of monitor units, over what the search uses."""


_SCALINGS, _CLOSE = 4, 1e-3
"""Steps in which monitor units are scaled to a level, and how near to it is near enough."""


@dataclass(frozen=True)
class ArcOptions:
    """How arcs are searched.

    Parameters
    ----------
    spacing : float
        Largest distance of control points [degree], > 0.
    beam_time : float, optional
        Seconds that all arcs together may take under beam [s]; 140 for each when left out. Less time is a worse plan.
    collimators, couches : sequence of float, optional
        Angles of each arc [degree]; collimators at 45 for one arc, 15, 345, 45 and 315 for
        several, couches at 0 when left out.
    start, stop : float
        Where the first arc begins and ends, clockwise [degree]; every second arc goes back.
    avoid : tuple of (float, float)
        Sectors of the gantry, clockwise from the first to the second angle [degree], in which the beam is off.
    margin : float
        Growth of the targets' projection that may be open [mm].
    seed : int
        Of the voxels in the sample and of the order of rows.
    effort : float
        Sweeps and iterations over the usual ones, > 0.
    """

    spacing: float = 4.0
    beam_time: float | None = None
    collimators: tuple[float, ...] | None = None
    couches: tuple[float, ...] | None = None
    start: float = 181.0
    stop: float = 179.0
    avoid: tuple[tuple[float, float], ...] = ()
    margin: float = 5.0
    seed: int = 0
    effort: float = 1.0

    def __post_init__(self) -> None:
        for name in ("spacing", "effort"):
            if not self.__dict__[name] > 0:
                raise InputError(f"{name} of arcs must be > 0, got {self.__dict__[name]!r}")
        if self.margin < 0:
            raise InputError(f"margin of arcs must be >= 0 mm, got {self.margin}")


@dataclass(frozen=True, eq=False)
class ArcOutcome:
    """Arcs that were searched, and what they were searched with.

    Parameters
    ----------
    plan : DeliveryPlan
        Rounded to what the machine is told.
    search : ArcSearch
        Matrix, cost and where the search ended; monitor units as in the plan.
    exact : array of shape (voxels,)
        Dose of the plan by the exact engine in the sampled voxels, per fraction [Gy].
    """

    plan: DeliveryPlan
    search: ArcSearch
    exact: Floats


def plan_arcs(
    patient: Patient,
    goals: Sequence[Goal],
    machine: PhotonMachine,
    mlc: MLC | None = None,
    arcs: int = 1,
    limits: MachineLimits | str = "TrueBeam",
    *,
    options: ArcOptions | None = None,
    grid: float = 5.0,
    fractions: int | None = None,
    isocenter: npt.ArrayLike | None = None,
    level: tuple[str, float, float] | None = None,
    start: DeliveryPlan | None = None,
    progress: Choice = None,
) -> DeliveryPlan:
    """Return arcs that serve goals, within the limits of a machine.

    Parameters
    ----------
    patient : Patient
        CT and structures.
    goals : sequence of Goal
        Of doses; levels are course totals. Aim lower at organs than the wish: arcs reach less than free fluence.
    machine : PhotonMachine
        A linac with monitor units.
    mlc : MLC, optional
        The collimator; that of the limits when left out.
    arcs : int
        Number of arcs, >= 1.
    limits : MachineLimits or str
        What the linac can do, or its name in the library; a margin of every speed is kept.
    options : ArcOptions, optional
        Angles, time and effort.
    grid : float
        Spacing of the dose grid of the search [mm].
    fractions : int, optional
        Number of fractions; the patient's, or 30.
    isocenter : array of shape (3,), optional
        World position [mm]; the targets' centre when left out.
    level : (str, float, float), optional
        Structure, share of its volume in (0, 1) and dose [Gy] that it gets at least: monitor units are scaled to it,
        such as ``("PTV", 0.95, 50.0)``.
    start : DeliveryPlan, optional
        Arcs of the same angles to start from, an earlier plan or what `radplan.delivery.sequencing.runs.arc_of_fluence`
        makes of a fluence at every control point; otherwise from nothing.
    progress : bool or callable, optional
        See `radplan.progress`; a callable is told after every step.

    Raises
    ------
    InputError
        When arcs, limits, collimator and time do not go together; before any long work.
    """
    outcome = search_arcs(
        patient, goals, machine, mlc, arcs, limits,
        options=options, grid=grid, fractions=fractions, isocenter=isocenter, level=level, start=start,
        progress=progress,
    )  # fmt: skip
    return outcome.plan


def search_arcs(
    patient: Patient,
    goals: Sequence[Goal],
    machine: PhotonMachine,
    mlc: MLC | None = None,
    arcs: int = 1,
    limits: MachineLimits | str = "TrueBeam",
    *,
    options: ArcOptions | None = None,
    grid: float = 5.0,
    fractions: int | None = None,
    isocenter: npt.ArrayLike | None = None,
    level: tuple[str, float, float] | None = None,
    start: DeliveryPlan | None = None,
    progress: Choice = None,
) -> ArcOutcome:
    """Return the arcs of `plan_arcs` with all that they were searched with."""
    chosen, linac = ArcOptions() if options is None else options, machine_limits(limits)
    collimator = linac.collimator() if mlc is None else mlc
    placed, budget = check_arcs(arcs, chosen, linac)
    _check(patient, goals, machine, collimator, linac, level)
    count = fractions if fractions is not None else (patient.fractions or 30)
    first_level = None if start is not None else _level_of(goals, patient, count)
    structures = tuple(dict.fromkeys(goal.structure for goal in goals))
    centre = np.asarray(target_center(patient) if isocenter is None else isocenter, dtype=np.float64)
    with listening(progress), threadpoolctl.threadpool_limits(limits=1, user_api="blas"):
        dose_grid = patient.ct.grid.with_spacing(grid)
        planning = linac.planning()
        targets = patient.target_names
        bixels = arc_bixels(patient, targets, machine, collimator, placed, centre, planning, chosen.margin)
        bixels.leaf_bounds(planning.bank_span)  # refuses what the carriages cannot do, before the long work
        matrix = arc_matrix(patient, machine, collimator, bixels, structures, targets, dose_grid, chosen.seed)
        _told(
            f"matrix: {bixels.segments} segments, {bixels.rows} x {bixels.columns} leaf rows and columns, "
            f"{bixels.count} bixels, {matrix.voxels.size} voxels"
        )
        rate = planning.dose_rate(machine.energy) / 60.0 / _SPARE_RATE
        cost = ArcCost.of(matrix, goals, count)
        search = ArcSearch(matrix, cost, collimator, planning, rate, budget, chosen.seed)
        if start is not None:
            search.begin_at(start)
        elif first_level is not None:
            _told(f"shapes: cost {search.price(first_level):.6g}")
        exact = _searched(search, patient, machine, chosen.effort, start is None)
        exact = _levelled(search, patient, machine, exact, level, count)
        plan = DeliveryPlan("arcs", tuple(search.fields(machine)), count, patient.patient_position)
        plan = rounded_plan(plan, linac)
        judged = check_delivery(plan, linac)
        _told(str(judged))
    judged.raise_for_errors()
    return ArcOutcome(plan, search, exact)


def check_arcs(arcs: int, options: ArcOptions, limits: MachineLimits) -> tuple[tuple[Arc, ...], float]:
    """Return where arcs go and the seconds they may take at planning speeds.

    Raises
    ------
    InputError
        When the machine cannot do that.
    """
    if limits.neighbour_gap is not None:
        raise InputError(f"{limits.name}: leaves may not pass their neighbours, which arcs are not searched with")
    placed = placed_arcs(arcs, options, limits)
    return placed, _budget(placed, options, limits)


def placed_arcs(arcs: int, options: ArcOptions, limits: MachineLimits) -> tuple[Arc, ...]:
    """Return where arcs go: there and back between the same angles, at control points in whole steps of the gantry.

    Raises
    ------
    InputError
        When there is no arc, angles are not given for each, or an arc crosses the stops of the gantry.

    >>> from radplan.machines.limits import library_limits
    >>> two = placed_arcs(2, ArcOptions(), library_limits("TrueBeam"))
    >>> [(float(arc.gantry[0]), float(arc.gantry[-1]), arc.direction, arc.collimator) for arc in two]
    [(181.0, 179.0, 'CW', 15.0), (179.0, 181.0, 'CC', 345.0)]
    """
    if isinstance(arcs, bool) or not isinstance(arcs, int) or arcs < 1:
        raise InputError(f"arcs must be a whole number >= 1, got {arcs!r}")
    usual = _ALONE if arcs == 1 else tuple(_COLLIMATORS[k % len(_COLLIMATORS)] for k in range(arcs))
    collimators = usual if options.collimators is None else options.collimators
    couches = (0.0,) * arcs if options.couches is None else options.couches
    for name, given in (("collimators", collimators), ("couches", couches)):
        if len(given) != arcs:
            raise InputError(f"{arcs} arcs need {arcs} {name}, got {len(given)}")
    first, last = limits.arc_stops
    free = (last - first) % 360.0 or 360.0
    begin, turn = (options.start - first) % 360.0, (options.stop - options.start) % 360.0 or 360.0
    if begin + turn > free + 1e-6:
        raise InputError(
            f"an arc from {options.start:g} to {options.stop:g} degrees crosses the gantry's stop: on {limits.name} "
            f"arcs run between {first:g} and {last:g}"
        )
    angles, avoided = _angles(options, limits.angle_step)
    back = tuple(angles.size - 2 - segment for segment in reversed(avoided))
    return tuple(
        Arc(angles[::-1], float(collimators[k]), float(couches[k]), "CC", back)
        if k % 2
        else Arc(angles, float(collimators[k]), float(couches[k]), "CW", avoided)
        for k in range(arcs)
    )


def _angles(options: ArcOptions, step: float) -> tuple[Floats, tuple[int, ...]]:
    """Return the gantry angles of the control points of an arc clockwise, and which segments are avoided sectors.

    >>> angles, avoided = _angles(ArcOptions(start=340.0, stop=40.0, spacing=15.0, avoid=((350.0, 10.0),)), 0.1)
    >>> angles.tolist(), avoided
    ([340.0, 350.0, 10.0, 25.0, 40.0], (1,))
    """
    turn = (options.stop - options.start) % 360.0 or 360.0
    sectors = sorted(((first - options.start) % 360.0, (last - first) % 360.0) for first, last in options.avoid)
    parts, avoided, reached = [np.asarray([options.start])], [], 0.0
    for begin, wide in sectors:
        if not (begin > reached and wide > 0.0 and begin + wide < turn):
            first, last = (options.start + begin) % 360.0, (options.start + begin + wide) % 360.0
            raise InputError(
                f"the avoided sector from {first:g} to {last:g} degrees must lie within the arc from {options.start:g} "
                f"to {options.stop:g}, clockwise and apart from others: join them, or let the arc begin or end there"
            )
        parts.append(arc_angles(options.start + reached, options.start + begin, options.spacing)[1:])
        avoided.append(sum(part.size for part in parts) - 1)
        reached = begin + wide
        parts.append(np.asarray([options.start + reached]))
    parts.append(arc_angles(options.start + reached, options.start + turn, options.spacing)[1:])
    angles = np.round(np.concatenate(parts) / step) * step
    return np.round(angles, 6) % 360.0, tuple(avoided)


def _budget(arcs: Sequence[Arc], options: ArcOptions, limits: MachineLimits) -> float:
    """Return the seconds for all arcs at planning speeds, after a check that gantry and dose rate are as fast."""
    asked = _SECONDS * len(arcs) if options.beam_time is None else options.beam_time
    degrees, planning = sum(float(arc.travel[arc.lit].sum()) for arc in arcs), limits.planning()
    least, beam = degrees / planning.gantry_speed, degrees * limits.mu_per_degree[0] / planning.dose_rate() * 60.0
    if beam > asked:
        raise InputError(
            f"{asked:g} s are too few for {len(arcs)} arcs: at least {limits.mu_per_degree[0]:g} MU/degree take "
            f"{beam:.0f} s at the dose rate of {limits.name}"
        )
    if not asked >= least:
        raise InputError(
            f"{asked:g} s are too few for {len(arcs)} arcs: the gantry of {limits.name} needs {least:.0f} s "
            f"at {limits.planning().gantry_speed:g} degrees/s"
        )
    return asked


def _check(
    patient: Patient,
    goals: Sequence[Goal],
    machine: PhotonMachine,
    mlc: MLC,
    limits: MachineLimits,
    level: tuple[str, float, float] | None,
) -> None:
    if mlc.name != limits.mlc:
        raise InputError(f"{limits.name} has the collimator {limits.mlc!r}, not {mlc.name!r}: give its own limits")
    if machine.reference is None:
        raise InputError(f"machine {machine.name!r} has no monitor units: arcs need a machine with a reference")
    if not goals:
        raise InputError("there is nothing to plan: give at least one goal")
    if level is not None and level[0] not in {goal.structure for goal in goals}:
        raise InputError(f"the level is asked of {level[0]!r}, which has no goal")
    if level is not None and not (0.0 < level[1] < 1.0 and level[2] > 0.0):
        raise InputError(f"level must be (structure, share of volume in (0, 1), dose > 0 Gy), got {level}")
    if not patient.target_names:
        raise InputError(f"patient {patient.name!r} has no structure of role 'target' to open leaves for")


def _level_of(goals: Sequence[Goal], patient: Patient, fractions: int) -> float:
    """Return the dose per fraction that the first shapes are brought to: the highest level of a target's goal [Gy]."""
    levels = [
        float(goal.objective.level)
        for goal in goals
        if goal.structure in patient.target_names and isinstance(goal.objective.level, int | float)
    ]
    if not levels:
        raise InputError("no goal asks for dose in a target: give one such as SquaredDeviation(50.0)")
    return max(levels) / fractions


def _searched(search: ArcSearch, patient: Patient, machine: PhotonMachine, effort: float, new: bool) -> Floats:
    """Run the steps of the search; return the exact engine's dose (voxels,) at its end."""
    if not new:
        return _searched_from(search, patient, machine, effort)
    unit = search.cost(search.dose())[0]
    rising = [None if step is None else step * unit / _UNIT_COST for step in _repeated(_PENALTIES, effort)]
    search.descend(rising)
    exact = np.zeros(search.matrix.voxels.size)
    for iterations, sweeps in _ROUNDS:
        value = search.search_ends(machine, round(iterations * effort))
        exact = _corrected(search, patient, machine, f"leaf ends: cost {value:.6g}")
        if sweeps:
            search.descend([None] * round(sweeps * effort))
    return exact


def _searched_from(search: ArcSearch, patient: Patient, machine: PhotonMachine, effort: float) -> Floats:
    """Run the steps of a search that has begun at a plan; return as `_searched` does."""
    exact = _corrected(search, patient, machine, f"start: cost {search.solve_units():.6g}")
    for sweeps, iterations in _ROUNDS_OF_START:
        search.descend([None] * round(sweeps * effort))
        value = search.search_ends(machine, round(iterations * effort))
        exact = _corrected(search, patient, machine, f"leaf ends: cost {value:.6g}")
    return exact


def _corrected(search: ArcSearch, patient: Patient, machine: PhotonMachine, told: str) -> Floats:
    """Correct the search's cost for the exact engine; return its dose (voxels,)."""
    exact = exact_dose(search, patient, machine)
    search.cost = search.cost.corrected(search.dose(), exact)
    _told(f"{told}, by the exact engine {search.cost(search.dose())[0]:.6g}")
    return exact


_UNIT_COST = 2e4
"""Cost of the shapes for which the penalties are meant."""


def _repeated(steps: Sequence[float | None], effort: float) -> list[float | None]:
    """Return steps, each as often as the effort asks."""
    places = np.minimum((np.arange(round(len(steps) * effort)) / effort).astype(int), len(steps) - 1)
    return [steps[place] for place in places]


def _told(detail: str) -> None:
    report("arcs", detail=detail, finished=True)


def exact_dose(search: ArcSearch, patient: Patient, machine: PhotonMachine) -> Floats:
    """Return the dose (voxels,) per fraction of a search's arcs by the exact engine in the sampled voxels [Gy]."""
    matrix = search.matrix
    plan = DeliveryPlan("arcs", tuple(search.fields(machine)), None, patient.patient_position)
    model = aperture_model(patient, plan, machine, search.mlc, matrix.grid, COARSE_RAYS, voxels=matrix.voxels)
    found = model.forward(np.asarray(model.variables.start))["physical_dose"]
    dose: Floats = np.asarray(arrays.to_numpy(found), dtype=np.float64)[0]
    return dose


def _levelled(
    search: ArcSearch,
    patient: Patient,
    machine: PhotonMachine,
    exact: Floats,
    level: tuple[str, float, float] | None,
    fractions: int,
) -> Floats:
    """Scale monitor units to the level asked for; return the exact dose that belongs to them.

    Segments at the fewest monitor units per degree stay there, so that it may take more than one step.
    """
    if level is None:
        return exact
    voxels, shares = search.matrix.members[level[0]]
    rows = np.searchsorted(search.matrix.voxels, voxels)
    for _ in range(_SCALINGS):
        found = float(arrays.quantile(exact[rows] * fractions, shares, level[1]))
        if not found > 0.0:
            raise InputError(f"{level[0]!r} gets no dose to scale to {level[2]:g} Gy")
        factor = level[2] / found
        whole = search.scale_mu(factor)
        if whole or abs(factor - 1.0) < _CLOSE:
            return exact * factor
        exact = exact_dose(search, patient, machine)
    return exact


def scaled_mu(plan: DeliveryPlan, factor: float) -> DeliveryPlan:
    """Return a plan with all monitor units multiplied by a factor > 0: the dose is multiplied by as much."""
    if not factor > 0.0:
        raise InputError(f"monitor units are multiplied by a factor > 0, got {factor}")
    fields = [
        replace(field, points=tuple(replace(point, meterset=point.meterset * factor) for point in field.points))
        for field in plan.fields
    ]
    return replace(plan, fields=tuple(fields))
