"""Delivered plans that climb the scorecard: leaf ends and monitor units, each step within the limits of the linac.

What `radplan.autoplan.ascent` does for bixels, from where a search on goals has ended.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import binary_dilation

from radplan.autoplan.ascent import BODY, BODY_WHOLE, ascended, kept_goals, score_cost
from radplan.autoplan.protocol import Protocol
from radplan.autoplan.scorecard import Score
from radplan.beams.control_points import DeliveryPlan
from radplan.delivery.apertures import delivery_plan
from radplan.delivery.arc_matrix import Ints, Members, sampled_members
from radplan.delivery.arc_search import COARSE_RAYS, ArcSearch
from radplan.delivery.arcs import ArcOutcome, exact_dose, scaled_mu
from radplan.delivery.bixel_apertures import BixelApertures, bixel_apertures
from radplan.delivery.check import check_delivery
from radplan.delivery.followed import FollowedApertures
from radplan.delivery.refine import shape_trajectories
from radplan.delivery.rounding import rounded_plan
from radplan.engines import ApertureModel, aperture_model
from radplan.geometry.grid import Grid
from radplan.machines import PhotonMachine
from radplan.machines.limits import MachineLimits
from radplan.patient import Patient
from radplan.plan import Plan, evaluate
from radplan.progress import report

COUNTS = (16.0, 8.0)
"""Least width of the band that a dose at a volume is averaged over in each round [voxels]; more rounds gain little."""
_SCALINGS, _CLOSE = 3, 1e-3
"""Most steps to the level (segments at the fewest monitor units per degree stay there), and how near is enough."""
_SPARE_MU = 1.05
"""Fewest monitor units of a shape over what the linac asks for [1]."""
_GAIN = 0.005
"""After a round that gains less than this share of the card's maximum there is no other."""


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
    """

    protocol: Protocol
    machine: PhotonMachine
    limits: MachineLimits
    level: tuple[str, str, float]
    grid: float = 3.0
    iterations: int = 40

    def climbed(self, outcome: ArcOutcome, patient: Patient) -> ArcOutcome:
        """Return the arcs of the best score between those of a search and the end of the ascent.

        Parameters
        ----------
        outcome : ArcOutcome
            What a search on goals ended with.
        patient : Patient
            With canonical names and helpers.
        """
        best = self._levelled(outcome.search, patient)
        self._tell("arcs of the goals", best[1])
        for count in COUNTS:
            climbed = self._round(best, patient, count)
            gained = climbed[1].total - best[1].total
            violations = check_delivery(self._rounded(climbed[0], patient), self.limits).violations
            refused = f", not deliverable: {violations[0]}" if violations else ""
            self._tell(f"ascent, bands of {count:g}{refused}", climbed[1])
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
        """Return the shapes of fixed fields of the best score between given ones and the end of an ascent.

        Shapes that stand climb by the aperture engine, windows, of many control points, on bixels.

        Parameters
        ----------
        shapes : DeliveryPlan
            Step and shoot or sliding windows.
        fluence : Plan
            Whose bixels windows climb on; scores are by the aperture engine.
        """
        patient = fluence.patient
        factor, score, judged = self._judged(shapes, patient)
        best = scaled_mu(shapes, factor)
        self._tell("fields of the goals", score)
        for count in COUNTS:
            model, sampled = self._shape_model(best, fluence, judged.model.grid)
            followed = FollowedApertures(model, shape_trajectories(best, model, self.limits))
            plan = evaluate(followed, np.asarray(followed.variables.start), patient, self.protocol.fractions)
            cost = score_cost(patient, self.protocol, plan, score, count, judged, sampled)
            x = followed.followed(ascended(cost, plan, self.iterations).x)
            moved = replace(delivery_plan(model, x, best.name, best.fractions), patient_position=best.patient_position)
            moved = self._above_least(moved)
            factor, reached, seen = self._judged(moved, patient)
            self._tell(f"ascent, bands of {count:g}", reached)
            gained = reached.total - score.total
            if gained > 0.0:
                best, score, judged = scaled_mu(moved, factor), reached, seen
            if gained < _GAIN * reached.maximum:
                break
        return rounded_plan(self._above_least(best), self.limits)

    def _shape_model(
        self, shapes: DeliveryPlan, fluence: Plan, grid: Grid
    ) -> tuple[ApertureModel | BixelApertures, Members | None]:
        """Return the model that shapes climb on, and the sample it needs where it does not hold the body."""
        mlc = self.limits.collimator()
        if any(field.technique == "dynamic" for field in shapes.fields):
            return bixel_apertures(fluence.model, shapes, mlc, limits=self.limits), None
        sampled, voxels = seen_voxels(fluence.patient, self.protocol, grid)
        exact = aperture_model(
            fluence.patient, shapes, self.machine, mlc, grid, COARSE_RAYS, voxels=voxels, limits=self.limits
        )
        return exact, sampled

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

    def _tell(self, what: str, score: Score) -> None:
        report("arcs", detail=f"{what}: {score.total:.2f} of {score.maximum:.0f}", finished=True)


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
