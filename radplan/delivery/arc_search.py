"""The search for an arc: shapes, rows, leaf ends, each step on the same matrix and within a time budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from radplan.beams.control_points import ControlPoint, DeliveryPlan, TreatmentField
from radplan.delivery.arc_bixels import no_faster
from radplan.delivery.arc_cost import ArcCost, solve_mu
from radplan.delivery.arc_matrix import ArcMatrix
from radplan.delivery.bixel_apertures import BixelApertures, BixelOpenings
from radplan.delivery.followed import FollowedApertures
from radplan.delivery.pricing import priced_shapes
from radplan.delivery.rows import RowDescent
from radplan.delivery.trajectories import envelope, leaf_trajectories
from radplan.engines import ApertureModel, ApertureOptions, aperture_model
from radplan.engines.aperture.variables import FieldLayout
from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.influence import Variables
from radplan.machines.limits import MachineLimits
from radplan.machines.mlc import MLC
from radplan.machines.photon import PhotonMachine
from radplan.optim.solvers import ProjectedLBFGS
from radplan.patient.patient import Patient
from radplan.progress import report

Floats = npt.NDArray[np.float64]

COARSE_RAYS = ApertureOptions(ray_spacing=3.0)
"""The exact engine during the search: rays as far apart as its dose voxels bear."""

_SPARE_MU = 1.04
"""Least monitor units per degree of a plan over what the machine asks for: it is scaled and rounded afterwards."""

_SLACK = 2.0
"""Monitor units over what the dose rate allows in the time of a segment, while times are still being shared."""

_JAW_MARGIN = 5.0
"""How far X jaws stay back from the leaf ends of open pairs [mm]."""

_IDLE = 1000.0
"""Seconds of a segment without beam, in which gantry and leaves wait for each other; not of the budget [s]."""

_OPEN = 0.5
"""A pair is open where its gap is wider than the least by more than this [mm]."""


@dataclass(eq=False)
class ArcSearch:
    """An arc plan in the making; its leaves, monitor units and times change as it goes.

    Parameters
    ----------
    matrix : ArcMatrix
        Bixels of all segments.
    cost : ArcCost
        What is minimised.
    mlc : MLC
        The collimator.
    limits : MachineLimits
        What the machine can do, less a margin.
    rate : float
        Largest dose rate [MU/s].
    budget : float
        Seconds that all arcs may take under beam [s].
    seed : int
        Of the order in which rows are visited.
    """

    matrix: ArcMatrix
    cost: ArcCost
    mlc: MLC
    limits: MachineLimits
    rate: float
    budget: float
    seed: int = 0

    def __post_init__(self) -> None:
        bixels = self.matrix.bixels
        self.random = np.random.default_rng(self.seed)
        self.bounds = bixels.leaf_bounds(self.limits.bank_span)
        self.leaves: Floats = np.zeros((bixels.points, bixels.rows, 2))
        self.mu: Floats = np.zeros(bixels.segments)
        self.seconds: Floats = np.zeros(bixels.segments)
        self._share(self._fastest)

    @property
    def _fastest(self) -> Floats:
        """Seconds that the gantry needs for every segment."""
        fastest: Floats = self.matrix.bixels.travel / self.limits.gantry_speed
        return fastest

    @property
    def travel(self) -> Floats:
        """How far leaves may go in every segment [mm]."""
        whole: Floats = np.floor(self.limits.leaf_speed * self.seconds / self.limits.leaf_step) * self.limits.leaf_step
        return whole

    def mu_bounds(self, slack: float = 1.0) -> tuple[Floats, Floats]:
        """Return fewest and most monitor units of every segment [MU]."""
        turned = np.where(self.matrix.bixels.lit, self.matrix.bixels.travel, 0.0)
        least, most = (turned * per_degree for per_degree in self.limits.mu_per_degree)
        least = _SPARE_MU * least
        upper: Floats = np.maximum(np.minimum(slack * self.rate * self.seconds, most / _SPARE_MU), least)
        return least, upper

    def needed(self) -> Floats:
        """Return the seconds that gantry, leaves and dose rate need in every segment."""
        begin = self.matrix.bixels.begin
        moves = np.abs(self.leaves[begin + 1] - self.leaves[begin]).max(axis=(1, 2))
        seconds: Floats = np.maximum.reduce([self._fastest, moves / self.limits.leaf_speed, self.mu / self.rate])
        return seconds

    def _share(self, needed: Floats) -> None:
        """Divide the budget: every segment gets what it needs, and what is left over is spread evenly."""
        lit = self.matrix.bixels.lit
        seconds, least = needed[lit], self._fastest[lit]
        spare = self.budget - seconds.sum()
        if spare >= 0.0:
            seconds = seconds + spare / seconds.size
        else:
            seconds = least + (seconds - least) * (self.budget - least.sum()) / (seconds.sum() - least.sum())
        self.seconds = np.full(needed.size, _IDLE)
        self.seconds[lit] = seconds

    def price(self, level: float) -> float:
        """Choose a shape for every segment by column generation; return the cost."""
        bounds = self.mu_bounds(_SLACK)
        shapes, self.mu = priced_shapes(self.matrix, self.cost, self.travel, *bounds, level)
        bixels = self.matrix.bixels
        total, beside = np.zeros((bixels.points, bixels.rows, 2)), np.zeros(bixels.points)
        for end in (0, 1):
            total[bixels.begin[bixels.lit] + end] += shapes[bixels.lit]
            beside[bixels.begin[bixels.lit] + end] += 1.0
        self.leaves = self._within(total / beside[:, None, None])
        return self._solved(_SLACK)

    def _within(self, leaves: Floats) -> Floats:
        """Return leaf ends (points, rows, 2) brought within bounds, pairs no closer than their gap [mm]."""
        low, high = self.matrix.bixels.places[..., 0], self.matrix.bixels.places[..., 1]
        inside = np.clip(leaves, low[..., None], high[..., None])
        half = np.maximum(0.5 * np.ptp(inside, axis=2), 0.5 * self.gap)
        middle = np.clip(inside.mean(axis=2), low + half, high - half)
        bounded: Floats = np.clip(np.stack([middle - half, middle + half], axis=2), *self.bounds)
        return bounded

    def begin_at(self, plan: DeliveryPlan) -> None:
        """Take leaves and monitor units of a plan of the same arcs.

        Raises
        ------
        InputError
            When it has other arcs or control points, or another collimator.
        """
        arcs = self.matrix.bixels.arcs
        if len(plan.fields) != len(arcs):
            raise InputError(f"the start has {len(plan.fields)} fields, but {len(arcs)} arcs are planned")
        leaves, mu = [], []
        for arc, field in zip(arcs, plan.fields, strict=True):
            angles = np.asarray([point.gantry for point in field.points])
            if angles.shape != arc.gantry.shape or np.max(np.abs((angles - arc.gantry + 180) % 360 - 180)) > 0.06:
                raise InputError(f"{field.label}: stands at other gantry angles than the arc that is planned")
            turned = (field.points[0].collimator - arc.collimator + 180.0) % 360.0 - 180.0
            if abs(turned) > 0.06:
                raise InputError(
                    f"{field.label}: has its collimator at {field.points[0].collimator:g} degrees, but the arc that is "
                    f"planned at {arc.collimator:g}: give ArcOptions(collimators=...)"
                )
            if field.leaf_boundaries is None or not self.mlc.fits(field.leaf_boundaries):
                raise InputError(f"{field.label}: has other leaves than MLC {self.mlc.name!r}")
            stands = [point.leaves for point in field.points if point.leaves is not None]
            leaves.append(np.stack(stands)[:, self.matrix.bixels.pairs])
            mu.append(np.diff([point.meterset for point in field.points]))
        self.leaves = self._within(np.concatenate(leaves))
        self.mu = np.concatenate(mu)
        self._share(self.needed())

    @property
    def gap(self) -> float:
        """Least gap of a pair [mm], a whole number of steps."""
        return float(np.ceil(self.limits.dynamic_gap / self.limits.leaf_step - 1e-9) * self.limits.leaf_step)

    def descend(self, penalties: Sequence[float | None]) -> float:
        """Sweep over rows with rising penalties on leaf speed, None for a hard limit; return the cost."""
        value, hard_before = np.inf, False
        for number, penalty in enumerate(penalties):
            if penalty is None and not hard_before:
                self.hold()
                hard_before = True
            rows = RowDescent(self.matrix, self.cost, self.leaves, self.mu, self.gap, self.bounds)
            moved = rows.sweep(self.travel, penalty, self.random)
            self.leaves = rows.leaves
            value = self._solved(1.0 if penalty is None else _SLACK)
            report("rows", number + 1, len(penalties), detail=f"{moved} moved, cost {value:.6g}")
            self._share(self.needed())
        return value

    def hold(self) -> None:
        """Bring leaves and monitor units within what the times of the segments allow."""
        bixels, parts = self.matrix.bixels, []
        for arc in range(len(bixels.arcs)):
            own = bixels.arc_of == arc
            first = int(bixels.begin[own][0])
            ends = self.leaves[first : first + int(own.sum()) + 1]
            parts.append(np.stack([envelope(ends[..., bank], self.travel[own]).values for bank in (0, 1)], axis=2))
        self.leaves = np.concatenate(parts)
        self.mu = np.clip(self.mu, *self.mu_bounds())

    def _solved(self, slack: float) -> float:
        columns = self.matrix.columns_of(self.matrix.swept(self.leaves))
        self.mu, dose = solve_mu(self.cost, columns, self.mu, *self.mu_bounds(slack))
        return self.cost(dose)[0]

    def solve_units(self) -> float:
        """Give the segments the monitor units of least cost for leaves as they are; return the cost."""
        self.hold()
        return self._solved(1.0)

    def dose(self) -> Floats:
        """Return the inner model's dose (voxels,) per fraction [Gy]."""
        return self.matrix.dose(self.mu, self.leaves)

    def fluence(self, iterations: int = 60) -> Floats:
        """Return the free fluence of all bixels (bixels,) that serves the goals best [MU].

        What arcs are measured by: nothing that leaves deliver is as good on the same matrix.
        """
        start = self.weights()  # what leaves give is allowed, so that the end is no worse
        best = ProjectedLBFGS(max_iterations=iterations).solve(self.cost.problem, x0=start).x
        return np.asarray(best, dtype=np.float64)

    def weights(self) -> Floats:
        """Return the fluence behind the leaves as they are (bixels,) [MU]."""
        return self.matrix.weights(self.mu, self.leaves)

    def search_ends(self, machine: PhotonMachine, iterations: int) -> float:
        """Search leaf ends and monitor units together, through the trajectories; return the cost."""
        self.hold()
        model = self._apertures(self.fields(machine))
        followed = self._followed(model, model.variables)
        limits = followed.variables
        start = np.asarray(limits.start)
        scale = self._scale(followed, start)

        def value_and_gradient(z: Floats) -> tuple[float, Floats]:
            x = z * scale
            dose = followed.forward(x)["physical_dose"][0]
            value, slope = self.cost(dose.astype(np.float64))
            return value, np.asarray(followed.pullback(x, {"physical_dose": slope[None, :]})) * scale

        bounds = np.stack([np.asarray(limits.lower) / scale, np.asarray(limits.upper) / scale], axis=1)
        options = {"maxiter": iterations, "maxcor": 20, "ftol": 1e-7}
        found: Any = minimize(  # type: ignore[call-overload]
            value_and_gradient, start / scale, jac=True, method="L-BFGS-B", bounds=bounds, options=options
        )
        self.take(followed, found.x * scale)
        return float(found.fun)

    def exact_ends(
        self, patient: Patient, machine: PhotonMachine, grid: Grid, voxels: npt.ArrayLike
    ) -> FollowedApertures:
        """Return the exact model of the arcs, moved as `search_ends` moves them: see `take`.

        Parameters
        ----------
        patient, machine : Patient, PhotonMachine
            Those of the search.
        grid : Grid
            The dose grid.
        voxels : array of shape (n,)
            Sorted flat indices of the voxels to calculate in.
        """
        self.hold()
        fields = self.fields(machine)
        plan = DeliveryPlan("arcs", tuple(fields), None, patient.patient_position)
        exact = aperture_model(patient, plan, machine, self.mlc, grid, COARSE_RAYS, voxels=voxels, limits=self.limits)
        inner = self._apertures(fields).variables
        own = replace(exact.variables, lower=inner.lower, upper=inner.upper, scale=inner.scale)
        return self._followed(exact, own)

    def take(self, followed: FollowedApertures, x: Floats) -> None:
        """Keep leaves and monitor units of variables of a model that `exact_ends` made, and share the time anew."""
        leaves, mu, ends = [], [], np.asarray(followed.followed(x))
        for layout in followed.layouts:
            placed = ends[layout.leaf_slice].reshape(layout.leaves.shape)[layout.openings]
            leaves.append(placed[:, self.matrix.bixels.pairs])
            given = np.zeros(len(layout.field.segments))
            given[list(layout.delivering)] = ends[layout.mu_slice]
            mu.append(given)
        self.leaves, self.mu = np.concatenate(leaves), np.concatenate(mu)
        self._share(self.needed())

    def scale_mu(self, factor: float) -> bool:
        """Multiply monitor units; False where segments at their fewest stayed there."""
        scaled = self.mu * factor
        self.mu = np.maximum(scaled, self.mu_bounds()[0])
        return bool(np.allclose(self.mu, scaled, rtol=1e-9))

    def _scale(self, followed: FollowedApertures, start: Floats) -> Floats:
        """Return sizes of the variables from the diagonal of the curvature, estimated with random signs."""
        dose = followed.forward(start)["physical_dose"][0].astype(np.float64)
        root = np.sqrt(self.cost.curvature(dose, self.cost(dose)[1]))
        total, signs = np.zeros(start.size), np.random.default_rng(0)
        for _ in range(4):
            row = signs.choice([-1.0, 1.0], root.size) * root
            total += np.asarray(followed.pullback(start, {"physical_dose": row[None, :]})) ** 2 / 4
        typical = np.broadcast_to(np.asarray(followed.variables.scale, dtype=np.float64), start.shape)
        moves = total * typical**2
        scale: Floats = typical / np.sqrt(np.maximum(moves, 1e-3 * max(moves.max(), 1e-30)))
        return scale

    def _followed(self, model: BixelApertures | ApertureModel, variables: Variables) -> FollowedApertures:
        bounded = leaf_trajectories(variables, model.layouts, self.limits, self._times())
        return FollowedApertures(model, bounded)

    def _times(self) -> list[Floats]:
        bixels = self.matrix.bixels
        return [self.seconds[bixels.arc_of == arc] for arc in range(len(bixels.arcs))]

    def _apertures(self, fields: list[TreatmentField]) -> BixelApertures:
        """Return the model of all leaves of the fields on the matrix: rows move, other pairs and the jaws stay."""
        matrix, bixels, layouts = self.matrix, self.matrix.bixels, [FieldLayout.of(fields[0], 0)]
        for field in fields[1:]:
            layouts.append(FieldLayout.of(field, layouts[-1].stop))
        ends = np.empty((4, bixels.segments, bixels.rows), dtype=np.int64)
        mu, lit = np.zeros(bixels.segments, dtype=np.int64), bixels.lit
        lower, upper = (np.concatenate([layout.start for layout in layouts]) for _ in range(2))
        least, most = self.mu_bounds()
        for arc, layout in enumerate(layouts):
            own = np.flatnonzero(bixels.arc_of == arc)
            pairs = layout.leaves.shape[1]
            for side in (0, 1):
                opening = layout.openings[side : side + own.size, None]
                first = layout.offset + 2 * (opening * pairs + bixels.pairs)
                ends[2 * side, own], ends[2 * side + 1, own] = first, first + 1
            mu[own[list(layout.delivering)]] = layout.mu_slice.start + np.arange(len(layout.delivering))
        for side, point in ((0, bixels.begin), (2, bixels.begin + 1)):
            for end in (0, 1):
                lower[ends[side + end]], upper[ends[side + end]] = (bound[point, :, end] for bound in self.bounds)
        lower[mu[lit]], upper[mu[lit]] = least[lit], most[lit]
        start = np.concatenate([layout.start for layout in layouts])
        scale = np.full(start.size, 5.0)
        scale[mu[lit]] = max(float(self.mu[lit].mean()), 1e-3)
        openings = BixelOpenings(
            bixel=np.arange(bixels.count),
            low=bixels.edges[bixels.column],
            high=bixels.edges[bixels.column + 1],
            ends=ends.reshape(4, -1)[:, bixels.lines],
            mu=mu[bixels.segment],
            within=np.ones(bixels.count),
        )
        variables = Variables(
            start.size, lower, upper, start, scale, ("leaf end [mm]", "jaw [mm]", "monitor units [MU]")
        )
        return BixelApertures(matrix.dij, tuple(layouts), openings, variables, matrix.transmission, matrix.leaf_offset)

    def fields(self, machine: PhotonMachine) -> list[TreatmentField]:
        """Return the arcs as fields of control points, with jaws about the rows and other pairs parked behind them."""
        bixels, made = self.matrix.bixels, []
        for number, arc in enumerate(bixels.arcs):
            own = np.flatnonzero(bixels.arc_of == number)
            first = int(bixels.begin[own[0]])
            metersets = np.concatenate([[0.0], np.cumsum(self.mu[own])])
            leaves = self.leaves[first : first + arc.segments + 1]
            x, y = (self._jaws(axis, leaves, self.seconds[own]) for axis in (0, 1))
            points = []
            for k in range(arc.segments + 1):
                ends = self._parked()
                ends[bixels.pairs] = self.leaves[first + k]
                points.append(
                    ControlPoint(
                        meterset=float(metersets[k]),
                        gantry=float(arc.gantry[k]),
                        collimator=arc.collimator,
                        couch=arc.couch,
                        isocenter=bixels.isocentre,
                        jaws_x=None if x is None else x[k],
                        jaws_y=None if y is None else y[k],
                        leaves=ends,
                        direction="NONE" if k == arc.segments else arc.direction,
                    )
                )
            made.append(
                TreatmentField(
                    f"Arc {number + 1}", number + 1, tuple(points), machine.sad, self.mlc.boundaries,
                    energy=machine.energy, machine=machine.name,
                )
            )  # fmt: skip
        return made

    def _parked(self) -> Floats:
        """Return leaf ends of all pairs at their gap in the middle of the field."""
        middle = 0.5 * (self.matrix.bixels.edges[0] + self.matrix.bixels.edges[-1])
        steps = self.limits.leaf_step
        first = np.round((middle - 0.5 * self.gap) / steps) * steps
        return np.tile([first, first + self.gap], (self.mlc.pairs, 1))

    def _jaws(self, axis: int, leaves: Floats, seconds: Floats) -> Floats | None:
        """Return jaws (points, 2) of axis 0 (X) or 1 (Y) about the open pairs of an arc; None where there are none.

        They follow the leaves (points, rows, 2) where they may move under beam, in the seconds of the segments; else
        they stand about all openings of the arc.
        """
        bounds, speed = self.limits.jaw_bounds(axis), self.limits.jaw_speed[axis]
        if bounds is None or speed is None:
            return None
        opened = np.ptp(leaves, axis=2) > self.gap + _OPEN
        opened[~opened.any(axis=1)] = True
        pairs = self.matrix.bixels.pairs
        if axis == 0:
            low, high = leaves[..., 0] - _JAW_MARGIN, leaves[..., 1] + _JAW_MARGIN
        else:
            low, high = self.mlc.boundaries[pairs], self.mlc.boundaries[pairs + 1]
        first, second = np.where(opened, low, np.inf).min(axis=1), np.where(opened, high, -np.inf).max(axis=1)
        first, second = np.minimum(first, bounds[0][1]), np.maximum(second, bounds[1][0])
        if not self.limits.jaw_tracking:
            return np.tile([first.min(), second.max()], (first.size, 1))
        return no_faster(np.stack([first, second], axis=-1)[:, None], speed * seconds)[:, 0]
