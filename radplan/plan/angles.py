"""Which directions beams should come from: a greedy choice among candidates, with warm starts."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from radplan.arrays import Array, namespace, to_numpy
from radplan.beams.beam import beam_angles
from radplan.beams.place import place_beams, target_center
from radplan.engines.base import Engine, dose_influence
from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.influence import Dij, Scenarios
from radplan.influence.joined import JoinedModel
from radplan.machines import ParticleMachine, PhotonMachine
from radplan.optim.goals import Goal
from radplan.optim.problem import Problem, checked_fractions, checked_terms
from radplan.optim.solvers import ProjectedLBFGS, Solution
from radplan.patient.patient import Patient
from radplan.plan.course import Plan
from radplan.plan.planning import DEFAULT_FRACTIONS, optimize
from radplan.progress import Choice, each, listening

logger = logging.getLogger(__name__)

Angles = tuple[float, float, float]
"""Gantry, couch and collimator of a beam [degree]."""

_TRIAL = 15
"""Iterations that a candidate is tried with."""


@dataclass(frozen=True, eq=False)
class BeamSelection:
    """Beams in the order in which they were chosen, and what each gained; made by `select_beams`.

    Parameters
    ----------
    angles : tuple of (float, float, float)
        Gantry, couch and collimator of the chosen beams, in their order [degree].
    costs : tuple of float
        Weighted sum of the goals with the first beam, with the first two, and so on, each searched to its end.
    trials : tuple of mapping of (float, float, float) to float
        For each beam the cost with every candidate that was left, after a short search.
    plan : Plan
        With all chosen beams.
    """

    angles: tuple[Angles, ...]
    costs: tuple[float, ...]
    trials: tuple[Mapping[Angles, float], ...]
    plan: Plan

    @property
    def gantry(self) -> tuple[float, ...]:
        """Gantry angles in the order in which they were chosen [degree]."""
        return tuple(gantry for gantry, _, _ in self.angles)

    @property
    def couch(self) -> tuple[float, ...]:
        """Couch angles in the same order [degree]."""
        return tuple(couch for _, couch, _ in self.angles)

    @property
    def gains(self) -> tuple[float, ...]:
        """By what share each beam after the first lowered the cost."""
        return tuple(1.0 - after / before for before, after in zip(self.costs, self.costs[1:], strict=False))


def select_beams(
    patient: Patient,
    machine: PhotonMachine | ParticleMachine,
    goals: Sequence[Goal],
    count: int,
    gantry: Iterable[float] = range(0, 360, 20),
    couch: float | Iterable[float] = 0.0,
    fractions: int | None = None,
    bixel_width: float = 5.0,
    grid: float | tuple[float, float, float] | Grid = 5.0,
    engine: str | Engine | None = None,
    stored: bool = True,
    device: str = "numpy",
    scenarios: Scenarios | None = None,
    always: Iterable[float] = (),
    solver: ProjectedLBFGS | None = None,
    progress: Choice = None,
    **placement: Any,
) -> BeamSelection:
    """Return the beams that lower the cost of the goals most, chosen one after the other among candidates.

    Each step tries every candidate beside the beams that are chosen already, from their plan and for a few iterations,
    takes the one with the least cost, and searches on with it to the end. That is a greedy search: each set holds the
    one before, and none of its beams is given back. What the n-th beam gains says whether it is worth its time.

    Parameters
    ----------
    patient : Patient
        CT and structures.
    machine : PhotonMachine or ParticleMachine
        As `radplan.load_machine` returns it.
    goals : sequence of Goal
        What plans are compared by.
    count : int
        How many beams to choose, those of `always` among them.
    gantry, couch : float or iterable of float
        Angles of the candidates [degree], as `radplan.place_beams` takes those of beams; no two alike.
    fractions : int, optional
        Number of fractions, as `radplan.optimize` takes it.
    bixel_width : float
        Bixels or spots [mm]; coarser ones than those of the final plan choose as well and faster.
    grid, engine, device, scenarios
        As `radplan.dose_influence` takes them.
    stored : bool
        Whether matrices of all candidates are kept; otherwise their dose is calculated on the fly in every product.
    always : iterable of float
        Gantry angles of candidates that are chosen first, in this order [degree].
    solver : ProjectedLBFGS, optional
        What searches for each set of beams.
    progress : bool or callable, optional
        As `radplan.dose_influence` takes it.
    placement
        What else `radplan.place_beams` is told: margins, targets, layer_spacing, ...

    Raises
    ------
    InputError
        When there are fewer candidates than beams, two alike, or an angle of `always` that is no candidate.

    Notes
    -----
    The cost is not convex in the set of beams, and a greedy set need not be the best of its size. Sources: Bangert and
    Unkelbach, Med. Phys. 43 (2016) 1073 (one beam after the other); Ehrgott, Holder and Reese, Linear Algebra Appl. 428
    (2008) 1272 (beam selection in general).

    >>> from radplan import Goal, SquaredDeviation, load_machine, load_patient
    >>> patient, machine = load_patient("box"), load_machine("generic_photon_6mv")
    >>> goals = [Goal("OuterTarget", SquaredDeviation(60.0))]
    >>> chosen = select_beams(patient, machine, goals, 2, [0, 90, 180], bixel_width=30, grid=15)
    >>> len(chosen.angles), len(chosen.trials[0]), len(chosen.trials[1]), chosen.gains[0] > 0
    (2, 3, 2, True)
    """
    candidates = _checked_candidates(gantry, couch, count)
    first = _places_of(always, candidates, count)
    placed = {"isocenter": target_center(patient, placement.get("targets")), "bixel_width": bixel_width, **placement}
    dose = {"grid": grid, "engine": engine, "stored": stored, "device": device, "scenarios": scenarios}
    search = _Search(
        patient, machine, checked_terms(goals, (), None)[0], fractions, solver or ProjectedLBFGS(), placed, dose
    )
    with listening(progress):
        models = [search.influence([angles]) for angles in each("influence", candidates, "candidates")]
        alone = [search.problem([model]).start for model in models]
        chosen: list[int] = []
        costs: list[float] = []
        trials: list[dict[Angles, float]] = []
        x = alone[0][:0]
        for number in range(count):
            left = [first[number]] if number < len(first) else [n for n in range(len(models)) if n not in chosen]
            tried = {}
            for n in each("optimise", left, f"beam {number + 1} of {count}"):
                tried[n] = search.tried([models[m] for m in (*chosen, n)], _shared(x, alone[n], number))
            chosen.append(min(left, key=lambda n: tried[n].value))
            solution = search.solver.solve(search.problem([models[n] for n in chosen]), x0=tried[chosen[-1]].x)
            x = solution.x
            costs.append(solution.value)
            trials.append({candidates[n]: tried[n].value for n in left})
            logger.info("beam %d: %s, cost %.5g", number + 1, _told(candidates[chosen[-1]]), solution.value)
        angles = tuple(candidates[n] for n in chosen)
        plan = search.plan(angles, x)
    return BeamSelection(angles, tuple(costs), tuple(trials), plan)


@dataclass(frozen=True, eq=False)
class _Search:
    """What the searches for all sets of beams share."""

    patient: Patient
    machine: PhotonMachine | ParticleMachine
    goals: tuple[Goal, ...]
    fractions: int | None
    solver: ProjectedLBFGS
    placement: Mapping[str, Any]
    dose: Mapping[str, Any]

    def influence(self, angles: Sequence[Angles]) -> Dij:
        """Return the dose of beams from some directions."""
        gantry, couch, collimator = zip(*angles, strict=True)
        beams = place_beams(self.patient, self.machine, gantry, couch, collimator, **self.placement)
        return dose_influence(self.patient, beams, self.machine, **self.dose)

    def problem(self, models: Sequence[Dij]) -> Problem:
        """Return the goals on the sum of some beams."""
        model = models[0] if len(models) == 1 else JoinedModel.of(models)
        count = self.fractions if self.fractions is not None else (self.patient.fractions or DEFAULT_FRACTIONS)
        return Problem(model, self.goals, self.patient, checked_fractions(count))

    def tried(self, models: Sequence[Dij], start: Array) -> Solution:
        """Return where a few iterations with some beams lead."""
        fewer = min(_TRIAL, self.solver.max_iterations)
        return replace(self.solver, max_iterations=fewer).solve(self.problem(models), x0=start)

    def plan(self, angles: Sequence[Angles], x: Array) -> Plan:
        """Return the plan of all chosen beams."""
        start = np.asarray(to_numpy(x), dtype=np.float64)
        model = self.influence(angles)
        return optimize(model, self.goals, self.patient, self.fractions, self.solver, start=start, progress=False)


def _shared(x: Array, alone: Array, number: int) -> Array:
    """Return a start with one beam more than the `number` of `x`: each gives its part of the dose."""
    xp = namespace(alone)
    return xp.concat([x * (number / (number + 1.0)), alone / (number + 1.0)])


def _checked_candidates(gantry: Any, couch: Any, count: int) -> list[Angles]:
    candidates = beam_angles(gantry, couch)
    turned = [(around % 360.0, table % 360.0) for around, table, _ in candidates]
    if len(set(turned)) != len(turned):
        alike = next(candidate for n, candidate in enumerate(candidates) if turned[n] in turned[:n])
        raise InputError(f"two candidates are the same beam, {_told(alike)}: state each direction once")
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= len(candidates):
        raise InputError(
            f"count must be a whole number of beams from 1 to the {len(candidates)} candidates, got {count!r}"
        )
    return candidates


def _places_of(always: Iterable[float], candidates: Sequence[Angles], count: int) -> list[int]:
    """Return which candidates come first."""
    gantry = [angles[0] % 360.0 for angles in candidates]
    wanted = [float(angle) for angle in always]
    around = [angle % 360.0 for angle in wanted]
    missing = [f"{angle:g}" for angle in around if angle not in gantry]
    if missing or len(wanted) > count or len(set(around)) != len(around):
        raise InputError(
            f"always={wanted} must be gantry angles of candidates, each once, at most {count}"
            + (f": no candidate comes from {', '.join(missing)} degrees" if missing else "")
        )
    several = [f"{angle:g}" for angle in around if gantry.count(angle) > 1]
    if several:
        raise InputError(f"always={wanted}: several candidates come from {', '.join(several)} degrees, by couch angle")
    return [gantry.index(angle) for angle in around]


def _told(angles: Angles) -> str:
    """Return what a message calls a direction."""
    return f"gantry {angles[0]:g}" + (f", couch {angles[1]:g}" if angles[1] else "")
