"""Which directions beams should come from: chosen one after the other among candidates, and exchanged, warm-started."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from radplan.arrays import Array, namespace, to_numpy
from radplan.beams.beam import beam_angles
from radplan.beams.place import place_beams, target_center
from radplan.engines.base import Engine, dose_influence
from radplan.errors import InputError
from radplan.geometry.frames import beam_rotation
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

_NEIGHBOURS = 2
"""How many candidates a beam may be exchanged for at a time: in a plane those on both sides."""

_LEAST_GAIN = 1e-3
"""Share of the cost that an exchange must gain."""


@dataclass(frozen=True, eq=False)
class BeamSelection:
    """The beams of each number that were chosen, and what they cost; made by `select_beams`.

    Parameters
    ----------
    sets : tuple of tuple of (float, float, float)
        Gantry, couch and collimator of one beam, of two, and so on [degree].
    costs : tuple of float
        Weighted sum of the goals with each of the sets, searched to its end.
    trials : tuple of mapping of (float, float, float) to float
        For each number of beams the cost with every candidate that could be added, after a short search.
    plan : Plan
        With all chosen beams.
    """

    sets: tuple[tuple[Angles, ...], ...]
    costs: tuple[float, ...]
    trials: tuple[Mapping[Angles, float], ...]
    plan: Plan

    @property
    def angles(self) -> tuple[Angles, ...]:
        """Gantry, couch and collimator of all chosen beams [degree], exchanged ones in the place of those before."""
        return self.sets[-1]

    @property
    def added(self) -> tuple[Angles, ...]:
        """The beam that was added at each step, before any exchange [degree]."""
        return tuple(min(tried, key=tried.__getitem__) for tried in self.trials)

    @property
    def gantry(self) -> tuple[float, ...]:
        """Gantry angles of all chosen beams [degree]."""
        return tuple(gantry for gantry, _, _ in self.angles)

    @property
    def couch(self) -> tuple[float, ...]:
        """Couch angles of all chosen beams, in the same order [degree]."""
        return tuple(couch for _, couch, _ in self.angles)

    @property
    def gains(self) -> tuple[float, ...]:
        """By what share each further beam lowered the cost."""
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
    exchange: bool = True,
    solver: ProjectedLBFGS | None = None,
    progress: Choice = None,
    **placement: Any,
) -> BeamSelection:
    """Return the beams that lower the cost of the goals most, chosen one after the other among candidates.

    Each step tries every candidate beside the beams that are chosen already, from their plan and for a few iterations,
    takes the one with the least cost, and searches on with it to the end. Then each beam in turn may give way to one of
    the nearest candidates on its sides, where a search to the end from there lowers the cost, until none does. What the
    n-th beam gains says whether it is worth its time.

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
        Gantry angles of candidates that are chosen first, in this order, and never exchanged [degree].
    exchange : bool
        Whether beams are exchanged for their neighbours; otherwise each set holds the one before.
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
    The cost is not convex in the set of beams, and a set that no neighbour betters need not be the best of its size.
    Sources: Bangert and Unkelbach, Med. Phys. 43 (2016) 1073 (one beam after the other); Aleman et al., J. Glob. Optim.
    42 (2008) 587 (neighbourhood search); Ehrgott, Holder and Reese, Linear Algebra Appl. 428
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
        pool = _Candidates.of(search, candidates)
        beams = _Set((), pool.alone[0][:0], float("inf"))
        sets: list[_Set] = []
        trials: list[dict[Angles, float]] = []
        for number in range(count):
            left = [first[number]] if number < len(first) else [n for n in pool.all if n not in beams.places]
            beams, tried = pool.grown(beams, left, count)
            trials.append({candidates[n]: value for n, value in tried.items()})
            if exchange:
                beams = pool.exchanged(beams, fixed=len(first))
            sets.append(beams)
            told = ", ".join(_told(candidates[n]) for n in beams.places)
            logger.info("%d of %d beams: %s, cost %.5g", number + 1, count, told, beams.cost)
        chosen = tuple(tuple(candidates[n] for n in beams.places) for beams in sets)
        plan = search.plan(chosen[-1], beams.x)
    return BeamSelection(chosen, tuple(beams.cost for beams in sets), tuple(trials), plan)


@dataclass(frozen=True, eq=False)
class _Set:
    """Some candidates by number, in the order in which they joined, their weights one after another, and the cost."""

    places: tuple[int, ...]
    x: Array
    cost: float


@dataclass(frozen=True, eq=False)
class _Candidates:
    """The dose of every candidate, and its weights where it gives the dose by itself."""

    search: _Search
    models: tuple[Dij, ...]
    alone: tuple[Array, ...]
    towards: npt.NDArray[np.float64]

    @classmethod
    def of(cls, search: _Search, candidates: Sequence[Angles]) -> _Candidates:
        """Return what is known of candidates: their dose, and where they come from."""
        models = tuple(search.influence([angles]) for angles in each("influence", candidates, "candidates"))
        alone = tuple(search.problem([model]).start for model in models)
        return cls(search, models, alone, np.stack([beam_rotation(*angles)[:, 2] for angles in candidates]))

    @property
    def all(self) -> range:
        """Numbers of the candidates."""
        return range(len(self.models))

    def grown(self, beams: _Set, left: Sequence[int], count: int) -> tuple[_Set, dict[int, float]]:
        """Return the set with the best of the candidates that are left, and the cost with each when it was tried."""
        number = len(beams.places)
        tried = {}
        for n in each("optimise", left, f"beam {number + 1} of {count}"):
            start = _shared(beams.x, self.alone[n], number)
            tried[n] = self.search.tried(self._of((*beams.places, n)), start)
        best = min(left, key=lambda n: tried[n].value)
        return self._searched((*beams.places, best), tried[best].x), {n: found.value for n, found in tried.items()}

    def exchanged(self, beams: _Set, fixed: int) -> _Set:
        """Return the set after beams but the first `fixed` gave way to neighbours that lower the cost, until none does.

        A beam's neighbours are the candidates nearest to its direction that are in no use.
        """
        place, kept = fixed, 0
        movable = len(beams.places) - fixed
        while movable > 0 and len(beams.places) > 1 and kept < movable:
            better = self._replaced(beams, place)
            kept = kept + 1 if better is None else 0
            beams = beams if better is None else better
            place = fixed + (place + 1 - fixed) % movable
        return beams

    def _replaced(self, beams: _Set, place: int) -> _Set | None:
        """Return the set with the beam at a place exchanged for its best neighbour; None where none lowers the cost."""
        own = beams.places[place]
        free = [n for n in self.all if n not in beams.places]
        nearest = sorted(free, key=lambda n: -float(self.towards[n] @ self.towards[own]))[:_NEIGHBOURS]
        parts, xp = self._parts(beams), namespace(beams.x)
        tried = {}
        for n in nearest:
            places = (*beams.places[:place], n, *beams.places[place + 1 :])
            start = xp.concat([*parts[:place], self.alone[n] / len(places), *parts[place + 1 :]])
            tried[places] = self.search.tried(self._of(places), start)
        if not tried:
            return None
        best = min(tried, key=lambda places: tried[places].value)
        found = self._searched(best, tried[best].x)
        return found if found.cost < (1.0 - _LEAST_GAIN) * beams.cost else None

    def _parts(self, beams: _Set) -> list[Array]:
        """Return the weights of each beam of a set."""
        ends = np.cumsum([0, *(self.alone[n].shape[0] for n in beams.places)])
        return [beams.x[first:last] for first, last in pairwise(ends)]

    def _of(self, places: Sequence[int]) -> list[Dij]:
        return [self.models[n] for n in places]

    def _searched(self, places: tuple[int, ...], start: Array) -> _Set:
        """Return a set of beams with the weights that a search from a start ends at."""
        solution = self.search.solver.solve(self.search.problem(self._of(places)), x0=start)
        return _Set(places, solution.x, solution.value)


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
