"""Scorecards: a plan judged as points, one piecewise linear curve for each criterion.

The score of an item is read from its curve, held at the ends; the total is the sum, and the maximum the sum of the best
points of all items. Large negative ends are allowed: a failed criterion shall hurt.

Source of the form: Nelms et al., Pract. Radiat. Oncol. 2 (2012) 296 (plan quality metric).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from radplan.autoplan.criteria import DOSE_INPUT, METRICS, Criterion, evaluate_criterion
from radplan.errors import FileError, InputError, RadplanError, UnknownNameError
from radplan.io.staging import staged_file
from radplan.plan import Plan

FORMAT = "radplan-scorecard"
VERSION = 1
_ITEM_KEYS = (
    "structure", "metric", "input", "input_unit", "output_unit", "rank", "points", "labels", "comment", "options",
)  # fmt: skip
_CARD_KEYS = (
    "format", "version", "name", "site", "source", "licence", "prescription_gy", "fractions", "items", "comment",
)  # fmt: skip


@dataclass(frozen=True)
class ScoreItem:
    """One criterion and its curve.

    Parameters
    ----------
    criterion : Criterion
        What is read from the plan.
    points : tuple of (float, float)
        At least two pairs of value and score, values ascending; a step is two points 1e-6 apart.
    rank : int
        Importance for display.
    labels : tuple of str
        What each point means, where a card says so.
    comment : str
        Free text.

    Raises
    ------
    InputError
        When the points are fewer than two, not ascending or not finite.

    >>> item = ScoreItem(Criterion("Rectum", "volume_at_dose", 50.0, "Gy", "%"), ((0, 5), (20, 3), (40, -4)))
    >>> item.score(10.0), item.score(60.0), item.maximum, item.best
    (4.0, -4.0, 5.0, 0.0)
    """

    criterion: Criterion
    points: tuple[tuple[float, float], ...]
    rank: int = 0
    labels: tuple[str, ...] = ()
    comment: str = ""

    def __post_init__(self) -> None:
        try:
            points = tuple((float(x), float(y)) for x, y in self.points)
        except (TypeError, ValueError) as error:
            raise InputError(f"{self.label}: points must be pairs of numbers, got {self.points!r}") from error
        object.__setattr__(self, "points", points)
        if len(points) < 2 or not all(math.isfinite(number) for point in points for number in point):
            raise InputError(f"{self.label}: a score needs at least two finite points, got {points}")
        if any(right[0] <= left[0] for left, right in pairwise(points)):
            raise InputError(f"{self.label}: values of score points must ascend, got {[x for x, _ in points]}")

    @property
    def label(self) -> str:
        """What the item judges, such as ``"Rectum V50Gy [%]"``."""
        return self.criterion.label

    @property
    def maximum(self) -> float:
        """The best score it can give."""
        return max(y for _, y in self.points)

    @property
    def best(self) -> float:
        """The value nearest to the rest of the curve that gives the best score."""
        tops = [x for x, y in self.points if y == self.maximum]
        return tops[-1] if self.rises_down else tops[0]

    @property
    def limit(self) -> float:
        """The value at the worst of its points that still scores; the best value where none does."""
        scoring = [x for x, y in self.points if y > 0.0]
        return (max(scoring) if self.rises_down else min(scoring)) if scoring else self.best

    @property
    def rises_down(self) -> bool:
        """Whether smaller values score better, as of organs at risk."""
        return self.points[0][1] >= self.points[-1][1]

    def score(self, value: float) -> float:
        """Return the score of a value: linear between points, held at the ends."""
        if math.isnan(value):
            return min(y for _, y in self.points)
        if value <= self.points[0][0]:
            return self.points[0][1]
        for (x0, y0), (x1, y1) in pairwise(self.points):
            if value <= x1:
                return y0 + (y1 - y0) * (value - x0) / (x1 - x0)
        return self.points[-1][1]

    def slope(self, value: float) -> float:
        """Return the slope of the segment that holds a value, of the nearest one beyond the ends."""
        segments = list(pairwise(self.points))
        for (x0, y0), (x1, y1) in segments:
            if value <= x1:
                return (y1 - y0) / (x1 - x0)
        (x0, y0), (x1, y1) = segments[-1]
        return (y1 - y0) / (x1 - x0)


@dataclass(frozen=True)
class ItemScore:
    """What one item gave."""

    item: ScoreItem
    value: float
    score: float


@dataclass(frozen=True)
class Score:
    """What a plan scored: each item with value, score and maximum, and what could not be judged.

    Parameters
    ----------
    items : tuple of ItemScore
        In the order of the card.
    dropped : tuple of str
        Items of structures that the patient lacks; totals of cards with other dropped items do not compare.
    """

    items: tuple[ItemScore, ...]
    dropped: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        """Sum of the scores."""
        return sum(entry.score for entry in self.items)

    @property
    def maximum(self) -> float:
        """Sum of the best scores of the items that were judged."""
        return sum(entry.item.maximum for entry in self.items)

    @property
    def percent(self) -> float:
        """Total over maximum [%]."""
        return 100.0 * self.total / self.maximum

    def table(self) -> str:
        """Return value, score and maximum of each item as text in 80 columns."""
        lines = [f"{'criterion':<44}{'value':>12}{'score':>12}{'of':>10}"]
        lines += [
            f"{entry.item.label:<44.44}{entry.value:>12.2f}{entry.score:>12.2f}{entry.item.maximum:>10.2f}"
            for entry in self.items
        ]
        lines.append(f"{'total':<44}{self.percent:>10.1f} %{self.total:>12.2f}{self.maximum:>10.2f}")
        lines += [f"not judged: {label}" for label in self.dropped]
        return "\n".join(lines)

    def to_spec(self) -> dict[str, Any]:
        """Return plain data for files."""
        rows = [
            {"criterion": e.item.label, "value": e.value, "score": e.score, "maximum": e.item.maximum}
            for e in self.items
        ]
        return {
            "total": self.total,
            "maximum": self.maximum,
            "percent": self.percent,
            "items": rows,
            "dropped": list(self.dropped),
        }


def score_table(scores: Mapping[str, Score]) -> str:
    """Return values and scores of several plans of one patient by one card, beside each other, as text.

    Parameters
    ----------
    scores : mapping of str to Score
        By what the plans are called.
    """
    given = list(scores.values())
    lines = [" " * 28 + "".join(f"{name:>19.18}" for name in scores)]
    lines.append(f"{'criterion':<28}" + f"{'value':>11}{'score':>8}" * len(given) + f"{'of':>8}")
    for entries in zip(*(score.items for score in given), strict=True):
        item = entries[0].item
        cells = "".join(f"{entry.value:>11.2f}{entry.score:>8.2f}" for entry in entries)
        lines.append(f"{item.label:<28.28}{cells}{item.maximum:>8.2f}")
    totals = "".join(f"{score.percent:>9.1f} %{score.total:>8.2f}" for score in given)
    lines.append(f"{'total':<28}{totals}{given[0].maximum:>8.2f}")
    lines += [f"not judged: {label}" for label in given[0].dropped]
    return "\n".join(lines)


@dataclass(frozen=True)
class Scorecard:
    """Criteria of one site with their curves.

    Parameters
    ----------
    name, site : str
        What the card is called, and where the disease is.
    items : tuple of ScoreItem
        At least one.
    prescription : float, optional
        What ``%`` of a dose refers to [Gy].
    fractions : int, optional
        Number of fractions.
    source, licence, comment : str
        Where the criteria come from.
    """

    name: str
    site: str
    items: tuple[ScoreItem, ...]
    prescription: float | None = None
    fractions: int | None = None
    source: str = ""
    licence: str = ""
    comment: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", tuple(self.items))
        if not self.items:
            raise InputError(f"the scorecard {self.name!r} has no items")
        for item in self.items:
            uses = item.criterion.input_unit == "%" and item.criterion.metric in DOSE_INPUT
            uses = uses or (item.criterion.output_unit == "%" and item.criterion.gives_dose)
            if uses and self.prescription is None:
                raise InputError(f"{item.label} is in % of the prescription: give the card a prescription_gy")

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Self:
        """Return the card that plain data describes, as in a file.

        Raises
        ------
        UnknownNameError
            When a key, a metric or a unit is misspelt.
        InputError
            When something is missing or impossible.
        """
        if not isinstance(spec, Mapping) or spec.get("format") != FORMAT:
            raise InputError(f"a scorecard states format {FORMAT!r}; PlanScoreCard files are read by their own reader")
        for key in spec:
            if key not in _CARD_KEYS:
                raise UnknownNameError("key of a scorecard", str(key), _CARD_KEYS)
        if spec.get("version") != VERSION:
            raise InputError(f"this is a scorecard of version {spec.get('version')!r}; version {VERSION} can be read")
        listed = spec.get("items")
        if not isinstance(listed, Sequence) or isinstance(listed, str):
            raise InputError("a scorecard lists its criteria under 'items'")
        items = tuple(_item(entry) for entry in listed)
        words = {key: str(spec.get(key, "")) for key in ("name", "site", "source", "licence", "comment")}
        dose, fractions = spec.get("prescription_gy"), spec.get("fractions")
        return cls(
            items=items,
            prescription=None if dose is None else float(dose),
            fractions=None if fractions is None else int(fractions),
            **words,
        )

    def to_spec(self) -> dict[str, Any]:
        """Return plain data from which `from_spec` makes the card again."""
        return {
            "format": FORMAT, "version": VERSION, "name": self.name, "site": self.site, "source": self.source,
            "licence": self.licence, "comment": self.comment, "prescription_gy": self.prescription,
            "fractions": self.fractions, "items": [_item_spec(item) for item in self.items],
        }  # fmt: skip

    def score(self, plan: Plan, quantity: str | None = None) -> Score:
        """Return what a plan scores; items of structures that the patient lacks are dropped and named.

        Parameters
        ----------
        plan : Plan
            With course totals.
        quantity : str, optional
            What is judged; what the plan is prescribed in otherwise.
        """
        judged, dropped = [], []
        for item in self.items:
            structure = item.criterion.structure
            if structure not in plan.patient.structures or not plan.patient.structures[structure].voxels.size:
                dropped.append(item.label)
                continue
            value = evaluate_criterion(item.criterion, plan, quantity or plan.prescribed, self.prescription)
            judged.append(ItemScore(item, value, item.score(value)))
        if not judged:
            raise InputError(f"no structure of the scorecard {self.name!r} is drawn in patient {plan.patient.name!r}")
        return Score(tuple(judged), tuple(dropped))

    def renamed(self, names: Mapping[str, str]) -> Scorecard:
        """Return the card with other names of structures."""
        items = [
            replace(
                item,
                criterion=replace(
                    item.criterion, structure=names.get(item.criterion.structure, item.criterion.structure)
                ),
            )
            for item in self.items
        ]
        return replace(self, items=tuple(items))


def read_scorecard(path: str | Path) -> Scorecard:
    """Return the card of a JSON file, radplan's own or a PlanScoreCard.

    Raises
    ------
    FileError
        When the file cannot be read, or says something impossible.
    """
    from radplan.io.scorecard_json import plan_score_card, read_json

    data = read_json(path)
    try:
        return Scorecard.from_spec(plan_score_card(data) if "ScoreTemplates" in data else data)
    except RadplanError as error:
        raise FileError(Path(path), str(error)) from error


def write_scorecard(card: Scorecard, path: str | Path) -> Path:
    """Write a card as JSON, whole or not at all."""
    file = Path(path)
    with staged_file(file) as partial:
        partial.write_text(json.dumps(card.to_spec(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return file


def _item(entry: Any) -> ScoreItem:
    if not isinstance(entry, Mapping):
        raise InputError(f"an item of a scorecard is a mapping with structure, metric and points, got {entry!r}")
    for key in entry:
        if key not in _ITEM_KEYS:
            raise UnknownNameError("key of a scorecard item", str(key), _ITEM_KEYS)
    for key in ("structure", "metric", "points"):
        if key not in entry:
            raise InputError(f"the item {dict(entry)!r} of a scorecard lacks {key!r}")
    if entry["metric"] not in METRICS:
        raise UnknownNameError("scorecard metric", str(entry["metric"]), METRICS)
    criterion = Criterion(
        str(entry["structure"]),
        str(entry["metric"]),
        None if entry.get("input") is None else float(entry["input"]),
        entry.get("input_unit"),
        entry.get("output_unit"),
        tuple((entry.get("options") or {}).items()),
    )
    return ScoreItem(
        criterion,
        tuple(tuple(point) for point in entry["points"]),
        int(entry.get("rank") or 0),
        tuple(entry.get("labels") or ()),
        str(entry.get("comment") or ""),
    )


def _item_spec(item: ScoreItem) -> dict[str, Any]:
    criterion = item.criterion
    spec: dict[str, Any] = {
        "structure": criterion.structure, "metric": criterion.metric, "input": criterion.input,
        "input_unit": criterion.input_unit, "output_unit": criterion.output_unit, "rank": item.rank,
        "points": [list(point) for point in item.points], "labels": list(item.labels), "comment": item.comment,
    }  # fmt: skip
    if criterion.options:
        spec["options"] = dict(criterion.options)
    return spec
