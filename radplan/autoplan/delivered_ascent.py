"""Delivered plans that climb the scorecard: leaf ends and monitor units, each step within the limits of the linac.

What `radplan.autoplan.ascent` does for bixels, from where a search on goals has ended. Sliding windows climb by way of
their fluence: after an intermediate dose it goes on climbing with what leaves add to its dose.
"""

from __future__ import annotations

import time
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import binary_dilation

from radplan.autoplan.ascent import BODY, BODY_WHOLE, ascended, kept_goals, score_cost
from radplan.autoplan.policy import SearchState
from radplan.autoplan.protocol import Protocol
from radplan.autoplan.refine import Iterate, Progress
from radplan.autoplan.scorecard import Score
from radplan.beams.control_points import DeliveryPlan
from radplan.delivery.apertures import delivery_plan
from radplan.delivery.arc_matrix import Ints, Members, sampled_members
from radplan.delivery.arc_search import COARSE_RAYS, ArcSearch
from radplan.delivery.arcs import ArcOutcome, exact_dose, scaled_mu
from radplan.delivery.check import check_delivery
from radplan.delivery.followed import FollowedApertures
from radplan.delivery.refine import shape_trajectories
from radplan.delivery.rounding import rounded_plan
from radplan.delivery.sequencing import sequence
from radplan.engines import PhotonPencilBeam, aperture_model, dose_influence
from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.influence import Dij, OffsetModel
from radplan.influence.given import on_device
from radplan.machines import PhotonMachine
from radplan.machines.limits import MachineLimits
from radplan.patient import Patient
from radplan.plan import Plan, evaluate
from radplan.progress import report

COUNTS = (16.0, 8.0)
"""Least width of the band that a dose at a volume is averaged over in each round [voxels]; more rounds gain little."""
WINDOW_COUNTS = (16.0, 8.0, 8.0, 4.0)
"""The same after each intermediate dose of sliding windows; the last holds on."""
WINDOW_ENDS, WINDOW_ITERATIONS = (8.0,), 20
"""The same in the last round, of leaf ends, and its iterations: each costs as much as ten of the fluence's."""
_SCALINGS, _CLOSE = 3, 1e-3
"""Most steps to the level (segments at the fewest monitor units per degree stay there), and how near is enough."""
_SPARE_MU = 1.05
"""Fewest monitor units of a shape over what the linac asks for [1]."""
_GAIN = 0.005
"""After a round that gains less than this share of the card's maximum there is no other."""

Fields = tuple[DeliveryPlan, Score, Plan]
"""Fields at their level, what they score, and the plan that was scored."""


@dataclass(frozen=True, eq=False)
class DeliveredAscent:
    """How arcs and the shapes of fixed fields climb the card of a protocol.

    Parameters
    ----------
    protocol : Protocol
        Card, targets and prescription.
    machine : PhotonMachine
        The linac.
    limits : MachineLimits
        What it can do.
    level : (str, str, float)
        Target, metric and dose that every plan is brought to [Gy], such as ``("PTV", "D95", 60.0)``.
    grid : float
        Spacing of the dose grid [mm]. On one of 5 mm arcs were found whose hot spots the score on 3 mm saw.
    iterations : int
        Of each round.
    intermediate_doses : int
        How often the dose of sliding windows is calculated and their fluence climbs on.
    told : callable, optional
        Given each delivered plan that is scored, the losing ones too.
    """

    protocol: Protocol
    machine: PhotonMachine
    limits: MachineLimits
    level: tuple[str, str, float]
    grid: float = 3.0
    iterations: int = 40
    intermediate_doses: int = 4
    told: Progress | None = None

    def climbed(self, outcome: ArcOutcome, patient: Patient) -> ArcOutcome:
        """Return the arcs of the best score between those of a search and the end of the ascent.

        Parameters
        ----------
        outcome : ArcOutcome
            What a search on goals ended with.
        patient : Patient
            With canonical names and helpers.
        """
        began = time.perf_counter()
        best = self._levelled(outcome.search, patient)
        self._tell("arcs of the goals", best[1], began)
        for count in COUNTS:
            began = time.perf_counter()
            climbed = self._round(best, patient, count)
            gained = climbed[1].total - best[1].total
            violations = check_delivery(self._rounded(climbed[0], patient), self.limits).violations
            refused = f", not deliverable: {violations[0]}" if violations else ""
            self._tell(f"ascent, bands of {count:g}{refused}", climbed[1], began, gained > 0.0 and not violations)
            if gained > 0.0 and not violations:
                best = climbed
            if violations or gained < _GAIN * climbed[1].maximum:
                break
        search = best[0]
        plan = self._rounded(search, patient)
        check_delivery(plan, self.limits).raise_for_errors()
        return replace(outcome, plan=plan, search=search, exact=exact_dose(search, patient, self.machine))

    def _round(
        self, best: tuple[ArcSearch, Score, Plan], patient: Patient, count: float
    ) -> tuple[ArcSearch, Score, Plan]:
        """Return where one ascent from the best arcs so far ends."""
        search = copy(best[0])
        grid = best[2].model.grid
        sampled, voxels = seen_voxels(patient, self.protocol, grid)
        followed = search.exact_ends(patient, self.machine, grid, voxels)
        plan = evaluate(followed, np.asarray(followed.variables.start), patient, self.protocol.fractions)
        cost = score_cost(patient, self.protocol, plan, best[1], count, best[2], sampled)
        search.take(followed, ascended(cost, plan, self.iterations).x)
        return self._levelled(search, patient)

    def _levelled(self, search: ArcSearch, patient: Patient) -> tuple[ArcSearch, Score, Plan]:
        """Return arcs at the level, what they score, and the plan that was scored."""
        search = copy(search)
        for _ in range(_SCALINGS):
            factor, score, plan = self._judged(self._plan(search, patient), patient)
            if search.scale_mu(factor) or abs(factor - 1.0) < _CLOSE:
                break
        return search, score, plan

    def _judged(self, fields: DeliveryPlan, patient: Patient) -> tuple[float, Score, Plan]:
        """Return what monitor units are to be multiplied by, and the score and the plan that this gives."""
        target, metric, wanted = self.level
        model = aperture_model(patient, fields, self.machine, self.limits.collimator(), self.grid, limits=self.limits)
        x = np.array(model.variables.start)
        plan = evaluate(model, x, patient, self.protocol.fractions)
        factor = float(wanted / plan.metrics(structures=[target], names=[metric])[target][metric])
        for layout in model.layouts:
            x[layout.mu_slice] *= factor
        plan = evaluate(model, x, patient, self.protocol.fractions)
        return factor, self.protocol.scorecard.score(plan), plan

    def climbed_fields(self, shapes: DeliveryPlan, fluence: Plan) -> DeliveryPlan:
        """Return the fixed fields of the best score between given ones and the end of an ascent.

        Leaf ends and monitor units climb by the aperture engine. Sliding windows, which have thousands of leaf ends,
        climb by way of their fluence first, see `_climbed_windows`, and end with a short round of the other.

        Parameters
        ----------
        shapes : DeliveryPlan
            Step and shoot or sliding windows.
        fluence : Plan
            What they were sequenced of.
        """
        began, windows = time.perf_counter(), any(field.technique == "dynamic" for field in shapes.fields)
        factor, score, judged = self._judged(shapes, fluence.patient)
        best = scaled_mu(shapes, factor), score, judged
        self._tell("sequenced" if windows else "fields of the goals", score, began)
        if windows:
            best = self._climbed_windows(best, replace(fluence, x=factor * fluence.x))
        for count in WINDOW_ENDS if windows else COUNTS:
            began = time.perf_counter()
            moved = self._moved_ends(best, fluence.patient, count, WINDOW_ITERATIONS if windows else self.iterations)
            gained = moved[1].total - best[1].total
            violations = check_delivery(self._rounded_fields(moved[0]), self.limits).violations
            refused = f", not deliverable: {violations[0]}" if violations else ""
            better = gained > 0.0 and not violations
            self._tell(f"ascent of leaf ends, bands of {count:g}{refused}", moved[1], began, better)
            best = moved if better else best
            if violations or gained < _GAIN * score.maximum:
                break
        return self._rounded_fields(best[0])

    def _moved_ends(self, best: Fields, patient: Patient, count: float, iterations: int) -> Fields:
        """Return where one ascent of leaf ends and monitor units from the best fields so far ends."""
        fields, score, judged = best
        sampled, voxels = seen_voxels(patient, self.protocol, judged.model.grid)
        exact = aperture_model(
            patient, fields, self.machine, self.limits.collimator(), judged.model.grid, COARSE_RAYS,
            voxels=voxels, limits=self.limits,
        )  # fmt: skip
        followed = FollowedApertures(exact, shape_trajectories(fields, exact, self.limits))
        plan = evaluate(followed, np.asarray(followed.variables.start), patient, self.protocol.fractions)
        cost = score_cost(patient, self.protocol, plan, score, count, judged, sampled)
        x = followed.followed(ascended(cost, plan, iterations).x)
        moved = replace(
            delivery_plan(exact, x, fields.name, fields.fractions), patient_position=fields.patient_position
        )
        moved = self._above_least(moved)
        factor, reached, seen = self._judged(moved, patient)
        return scaled_mu(moved, factor), reached, seen

    def _climbed_windows(self, best: Fields, fluence: Plan) -> Fields:
        r"""Return the sliding windows of the best score between given ones and those that intermediate doses lead to.

        What windows deliver more than their fluence's own dose, by the aperture engine, is held while the fluence
        climbs the card on; then it is sequenced again. The bixels' dose is calculated anew where the delivered dose is
        scored: on a coarser grid, with one voxel for each bixel, the ascent sees no ripples between leaf rows.
        """
        patient, fractions, (_, score, judged) = fluence.patient, self.protocol.fractions, best
        if self.intermediate_doses:
            sampled, voxels = seen_voxels(patient, self.protocol, judged.model.grid)
            bixels = self._bixels(fluence, judged.model.grid, voxels)
        for number in range(self.intermediate_doses):
            began = time.perf_counter()
            dose = judged["physical_dose"].reshape(-1)[voxels] / fractions
            model = OffsetModel.through(bixels, on_device(fluence.x, bixels), {"physical_dose": dose[None, :]})
            plan = evaluate(model, fluence.x, patient, fractions)
            count = WINDOW_COUNTS[min(number, len(WINDOW_COUNTS) - 1)]
            cost = score_cost(patient, self.protocol, plan, score, count, judged, sampled)
            climbed = replace(fluence, x=ascended(cost, plan, self.iterations).x)
            windows = sequence(
                climbed, self.limits.collimator(), "sliding_window", limits=self.limits, machine=self.machine
            )
            factor, score, judged = self._judged(windows, patient)
            fluence, gained = replace(climbed, x=factor * climbed.x), score.total - best[1].total
            self._tell(f"intermediate dose {number + 1}", score, began, gained > 0.0)
            if gained > 0.0:
                best = scaled_mu(windows, factor), score, judged
            if gained < _GAIN * score.maximum:
                break
        return best

    def _bixels(self, fluence: Plan, grid: Grid, voxels: Ints) -> Dij:
        """Return the dose of the bixels of a fluence in some voxels of another grid."""
        if fluence.beams is None:
            raise InputError("the fluence does not know its beams: give them to its plan")
        engine = PhotonPencilBeam(lateral_cutoff=self.protocol.lateral_cutoff)
        return dose_influence(fluence.patient, fluence.beams, self.machine, grid, engine, voxels=voxels)

    def _rounded_fields(self, shapes: DeliveryPlan) -> DeliveryPlan:
        return rounded_plan(self._above_least(shapes), self.limits)

    def _above_least(self, shapes: DeliveryPlan) -> DeliveryPlan:
        """Return shapes that stand with a little more than the fewest monitor units: they are scaled afterwards."""
        least, fields = _SPARE_MU * self.limits.segment_mu, []
        for field in shapes.fields:
            given = np.diff([point.meterset for point in field.points], prepend=0.0)
            stands = field.technique != "dynamic"
            sums = np.cumsum(np.where((given > 0.0) & stands, np.maximum(given, least), given))
            points = [replace(point, meterset=float(units)) for point, units in zip(field.points, sums, strict=True)]
            fields.append(replace(field, points=tuple(points)))
        return replace(shapes, fields=tuple(fields))

    def _plan(self, search: ArcSearch, patient: Patient) -> DeliveryPlan:
        fields = tuple(search.fields(self.machine))
        return DeliveryPlan("arcs", fields, self.protocol.fractions, patient.patient_position)

    def _rounded(self, search: ArcSearch, patient: Patient) -> DeliveryPlan:
        return rounded_plan(self._plan(search, patient), self.limits)

    def _tell(self, what: str, score: Score, began: float, best: bool = True) -> None:
        """Report what a delivered plan scored, and give it to whoever keeps them."""
        seconds = time.perf_counter() - began
        mark = ", best so far" if best else ""
        report("delivered", detail=f"{what}: {score.total:.2f} of {score.maximum:.0f}{mark}", finished=True)
        if self.told is not None:
            self.told(Iterate(what, SearchState(), (), score, seconds, best))


def seen_voxels(patient: Patient, protocol: Protocol, grid: Grid) -> tuple[Members, Ints]:
    """Return a sample of the structures of `kept_goals` and of the body, and all voxels that a card needs with it.

    Structures that the card judges are whole, with the voxels that their dose is read from.
    """
    names = list(dict.fromkeys(goal.structure for goal in kept_goals(patient, protocol)))
    sampled, voxels = sampled_members(patient, grid, names, patient.target_names, 0)
    body, more = sampled_members(patient, grid, [BODY], patient.target_names, 0)
    judged = {item.criterion.structure for item in protocol.scorecard.items} & set(patient.structures) - {BODY}
    whole = np.zeros(grid.shape, dtype=bool)
    for name in (*judged, *patient.target_names):
        whole.reshape(-1)[patient.structure_weights(name, grid)[0]] = True
    near = np.flatnonzero(binary_dilation(whole, np.ones((3, 3, 3), dtype=bool)))
    inside = np.intersect1d(near, patient.body_voxels(grid))
    return {**sampled, BODY_WHOLE: body[BODY]}, np.unique(np.concatenate([inside, voxels, more]))
