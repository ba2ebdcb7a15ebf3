"""Objective policies: from a scorecard and what the last plan scored to the goals of the next one.

A policy is a pure function of the patient, the protocol and the state of the search. Levels are course totals [Gy].
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from radplan.autoplan.knowledge import dose_at_volumes
from radplan.autoplan.protocol import Protocol
from radplan.autoplan.scorecard import ItemScore, Score, ScoreItem
from radplan.optim import Goal, MaxDVH, Mean, SquaredOverdosing, SquaredUnderdosing
from radplan.patient import Patient
from radplan.patient.structures import after_overlap
from radplan.plan import Plan
from radplan.registry import Registry

VOLUMES = (1.0, 10.0, 20.0, 30.0, 40.0, 60.0, 80.0)
"""Volumes at which the margin policy takes points of each organ's DVH [%]."""
_TARGET_WEIGHT = 300.0
_UNDER, _OVER = 1.0, 1.03
"""Levels of a target's goals over its prescription [1]."""
_BELOW_LIMIT = 0.96
"""Level of the goal on a hot spot over the worst value that a card still rewards [1]."""


@dataclass(frozen=True)
class SearchState:
    """Where a search for the best score stands.

    Parameters
    ----------
    plan : Plan, optional
        The plan to improve; None for the first one.
    score : Score, optional
        Its score.
    share : float
        Weight of target goals over the published one [1].
    shrink : float
        How far margins are halved: 1 takes them whole, 0.5 half.
    weights : mapping of str to float
        Weights of the items of the card by label [1]; 1 where none is given.
    """

    plan: Plan | None = None
    score: Score | None = None
    share: float = 1.0
    shrink: float = 1.0
    weights: Mapping[str, float] | None = None

    def weight(self, item: ScoreItem) -> float:
        """Return the weight of an item."""
        return (self.weights or {}).get(item.label, 1.0)


class ObjectivePolicy(ABC):
    """How goals follow from a scorecard and the last plan."""

    name: ClassVar[str]

    @abstractmethod
    def goals(self, patient: Patient, protocol: Protocol, state: SearchState) -> tuple[Goal, ...]:
        """Return the goals of the next plan."""

    @classmethod
    def examples(cls) -> list[ObjectivePolicy]:
        """Return instances to check."""
        return [cls()]


POLICIES: Registry[ObjectivePolicy] = Registry("policy", ObjectivePolicy)  # type: ignore[type-abstract]
"""All policies by name."""


@POLICIES.register
@dataclass(frozen=True)
class ScorecardInitial(ObjectivePolicy):
    """Goals from the card alone: each item aimed below the middle of its curve."""

    name: ClassVar[str] = "scorecard_initial"

    def goals(self, patient: Patient, protocol: Protocol, state: SearchState) -> tuple[Goal, ...]:
        goals = [*target_goals(patient, protocol, state), *hot_spot_goals(patient, protocol, state)]
        for item in organ_items(patient, protocol):
            middle = item.points[len(item.points) // 2][0]
            goals.append(_item_goal(item, max(0.85 * middle, item.points[0][0]), 80.0, patient, protocol))
        return tuple(goals)


@POLICIES.register
@dataclass(frozen=True)
class DVHMargins(ObjectivePolicy):
    """Goals a margin below the last plan's DVH and score curves, published as AIRTP, with what has to differ here.

    Margins are taken on the dose axis; of an item that is a volume at a dose the allowed volume shrinks. Priorities are
    shared among the points of one organ, so that targets are not starved.

    Source: Gao et al., Automating high quality RT planning at scale (2025).
    """

    name: ClassVar[str] = "dvh_margins"

    def goals(self, patient: Patient, protocol: Protocol, state: SearchState) -> tuple[Goal, ...]:
        plan, score = state.plan, state.score
        if plan is None or score is None:
            return ScorecardInitial().goals(patient, protocol, state)
        goals = [*target_goals(patient, protocol, state), *hot_spot_goals(patient, protocol, state)]
        organs = dict.fromkeys(item.criterion.structure for item in organ_items(patient, protocol))
        for organ in organs:
            if organ == "External":
                continue
            doses = dose_at_volumes(plan, organ, np.asarray(VOLUMES))
            for volume, dose in zip(VOLUMES, doses.tolist(), strict=True):
                level, priority = dose_to_objective(dose, volume, organ.endswith("_less_PTV"))
                if dose > 1.0:
                    objective = MaxDVH(dose + (level - dose) * state.shrink, volume / 100.0)
                    goals.append(Goal(organ, objective, priority / len(VOLUMES)))
        judged = [entry for entry in score.items if _is_organ(entry.item, patient, protocol)]
        goals += [_margin_goal(entry, state.shrink, patient, protocol) for entry in judged]
        return tuple(goals)


@POLICIES.register
@dataclass(frozen=True)
class Adaptive(ObjectivePolicy):
    """One goal for each item, aimed at the best end of its curve; weights follow what each item still loses."""

    name: ClassVar[str] = "adaptive"

    def goals(self, patient: Patient, protocol: Protocol, state: SearchState) -> tuple[Goal, ...]:
        goals = [*target_goals(patient, protocol, state), *hot_spot_goals(patient, protocol, state)]
        values = {entry.item.label: entry.value for entry in state.score.items} if state.score is not None else {}
        for item in organ_items(patient, protocol):
            aim = item.best
            kind = item.criterion.metric
            if kind == "mean_dose":
                aim = min(0.9 * aim if values.get(item.label, math.inf) > aim else aim, values.get(item.label, aim))
            goals.append(_item_goal(item, aim, 60.0 * state.weight(item), patient, protocol))
        return tuple(goals)


def target_goals(patient: Patient, protocol: Protocol, state: SearchState) -> tuple[Goal, ...]:
    """Return the goals on targets, rings and the body, which follow from the prescription alone."""
    goals = []
    for target, dose in protocol.targets.items():
        if target not in patient.structures:
            continue
        items = [item for item in protocol.scorecard.items if item.criterion.structure == target]
        cover = max([state.weight(item) for item in items if not item.rises_down], default=1.0)
        even = max([state.weight(item) for item in items if item.rises_down], default=1.0)
        weight = _TARGET_WEIGHT * state.share
        goals.append(Goal(target, SquaredUnderdosing(_UNDER * dose), weight * cover))
        goals.append(Goal(target, SquaredOverdosing(_OVER * dose), weight * even))
    for ring, share in (protocol.rings or {}).items():
        if ring in patient.structures:
            goals.append(Goal(ring, SquaredOverdosing(share * protocol.prescription), 250.0))
    goals.append(Goal("External", SquaredOverdosing(0.95 * protocol.prescription), 60.0))
    return tuple(goals)


def hot_spot_goals(patient: Patient, protocol: Protocol, state: SearchState) -> tuple[Goal, ...]:
    """Return a goal for each item that limits the hottest part of an organ, a little below what the card still rewards.

    A mean over a large organ hardly sees a hot spot of a few voxels; here a voxel weighs as much as one of the first
    target, however large the organ.
    """
    first = next((name for name in protocol.targets if name in patient.structures), None)
    goals = []
    for item in organ_items(patient, protocol):
        if first is None or not _judges_hot_spot(item) or item.criterion.structure == "External":
            continue
        share = patient.structures[item.criterion.structure].volume / patient.structures[first].volume
        weight = _TARGET_WEIGHT * state.share * share * max(state.weight(item), 1.0)
        limit = item.limit / _own_units(item, patient, protocol)
        goals.append(Goal(item.criterion.structure, SquaredOverdosing(_BELOW_LIMIT * limit), weight))
    return tuple(goals)


def seen_goals(goals: Sequence[Goal], patient: Patient) -> tuple[Goal, ...]:
    """Return the goals whose structures keep a voxel after overlap: helpers may cover all of the body."""
    left = after_overlap(patient.structures, [goal.structure for goal in goals])
    return tuple(goal for goal in goals if left[goal.structure][0].size)


def organ_items(patient: Patient, protocol: Protocol) -> list[ScoreItem]:
    """Return the items of the card that ask an organ at risk for less dose."""
    return [item for item in protocol.scorecard.items if _is_organ(item, patient, protocol)]


def dose_to_objective(dose: float, volume: float, less_target: bool) -> tuple[float, float]:
    """Return the level [Gy] and priority of a DVH point that a dose at a volume [%] asks for, first match counts.

    Source: Gao et al. (2025), table of Dose2Obj.

    >>> dose_to_objective(70.0, 10.0, False), dose_to_objective(10.0, 30.0, False)
    ((69.0, 80.0), (9.5, 80.0))
    """
    if less_target and dose > 20.0:
        return max(0.95 * dose, dose - 3.0), 120.0
    if dose > 63.0:
        return dose - 1.0, 80.0
    if (dose < 20.0 and volume < 50.0) or dose < 10.0:
        return max(0.95 * dose, dose - 2.0), 80.0
    return max(0.95 * dose, dose - 2.0), 120.0


def _is_organ(item: ScoreItem, patient: Patient, protocol: Protocol) -> bool:
    structure = item.criterion.structure
    known = structure in patient.structures and patient.structures[structure].voxels.size > 0
    plain = item.criterion.metric in ("mean_dose", "max_dose", "dose_at_volume", "volume_at_dose")
    return known and plain and structure not in protocol.targets and item.rises_down


def _judges_hot_spot(item: ScoreItem) -> bool:
    criterion = item.criterion
    small = criterion.metric == "dose_at_volume" and criterion.input_unit == "cc" and (criterion.input or 0.0) <= 1.0
    return small or criterion.metric == "max_dose"


def _item_goal(item: ScoreItem, aim: float, weight: float, patient: Patient, protocol: Protocol) -> Goal:
    """Return the goal that brings an item to a value in its own unit."""
    criterion = item.criterion
    level = aim / _own_units(item, patient, protocol)
    if criterion.metric == "mean_dose":
        return Goal(criterion.structure, Mean(level, form="quadratic"), weight / 4.0)
    if criterion.metric == "volume_at_dose":
        dose = 0.98 * criterion.dose_level(protocol.scorecard.prescription)
        return Goal(criterion.structure, MaxDVH(dose, min(max(level / 100.0, 0.0), 0.99)), weight)
    if criterion.metric == "dose_at_volume" and criterion.input_unit == "%":
        return Goal(criterion.structure, MaxDVH(level, min((criterion.input or 0.0) / 100.0, 0.99)), weight)
    return Goal(criterion.structure, SquaredOverdosing(level), weight)


def _margin_goal(entry: ItemScore, shrink: float, patient: Patient, protocol: Protocol) -> Goal:
    """Return the goal of an item a margin below its value; steep and badly scored items pull most."""
    item, unit = entry.item, _own_units(entry.item, patient, protocol)
    value = min(max(entry.value, item.points[0][0]), item.points[-1][0])
    slope = min(unit * abs(item.slope(value)), 7.0)
    priority = 60.0 + 20.0 * slope / (1.0 + math.exp(min(item.score(value) / 3.0, 50.0)))
    if item.criterion.metric == "volume_at_dose":
        aim = value * (1.0 - 0.15 * shrink)
    else:
        aim = value - shrink * min(0.15 * value, 7.0 * unit)
    return _item_goal(item, aim, priority, patient, protocol)


def _own_units(item: ScoreItem, patient: Patient, protocol: Protocol) -> float:
    """Return how many of an item's unit are 1 Gy, or 1 % of its structure."""
    volume = patient.structures[item.criterion.structure].volume / 1000.0
    return item.criterion.own_units(protocol.scorecard.prescription, volume)
