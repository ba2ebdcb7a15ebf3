"""Constraints: bounds on a metric, or on an objective's value, that a plan must keep in one structure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from radplan.errors import InputError, UnknownNameError
from radplan.optim.goals import (
    check_term,
    is_number,
    objective_from_spec,
    quantity_from_spec,
    quantity_to_spec,
    term_label,
)
from radplan.optim.objectives import EUD, DoseAtVolume, Mean, Objective, VolumeAtDose
from radplan.quantities.base import QUANTITIES, Quantity

METRIC_FORMS = "Dmean, Dmin, Dmax, D<percent> (D95), D<volume>cc (D0.1cc), V<level>Gy (V20Gy), gEUD(<a>)"
"""Metrics that can be bounded, as messages show them."""

_METRIC = re.compile(r"(?P<kind>D|V|gEUD)\(?(?P<number>-?\d+(?:[._]\d+)?)\)?(?P<unit>%|cc|Gy)?")
_NOTHING = ((0.0, -math.inf), (1.0, math.inf))
_BOUND = re.compile(r"(?P<number>[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)\s*(?P<unit>\S.*)?")
_KEYS = ("structure", "metric", "objective", "parameters", "lower", "upper", "quantity", "robust")
_ROBUST = {"nominal": "", "expected": " expected over scenarios", "worst": " in the worst scenario"}
_PLAIN = {"Dmean": Mean(), "mean": Mean(), "Dmax": DoseAtVolume(0.0), "max": DoseAtVolume(0.0)} | dict.fromkeys(
    ("Dmin", "min"), DoseAtVolume(1.0)
)


@dataclass(frozen=True)
class Constraint:
    """A bound on a metric or on the value of an objective: ``lower <= value in structure <= upper``.

    ``Constraint("Core", "D10", upper=15.0)`` holds D10 of the core at 15 Gy or less, ``Constraint("Lung", "V20Gy",
    upper=29.0)`` the volume that gets 20 Gy at 29 % or less.

    A metric by its name is that of the whole structure, as `Plan.metrics` reads it; an objective sees the structure
    after overlap, as a goal does.

    Parameters
    ----------
    structure : str
        Name of the structure.
    objective : Objective or str
        The function that is bounded, or the written name of a metric: ``Dmean``, ``Dmax``, ``Dmin``, ``D10``,
        ``D0.1cc``, ``V20Gy`` [%], ``gEUD(8)``.
    lower, upper : float, optional
        Bounds, at least one: course totals in the unit of the quantity, % for a volume, for objectives in the unit of
        their value.
    quantity : str or Quantity
        As in `Goal`.
    robust : {"nominal", "expected", "worst"}
        Where it must hold: in the first scenario of the model, in the mean over all by their probabilities, or in every
        one.

    Raises
    ------
    UnknownNameError
        When `robust` is another word.
    InputError
        When no metric is written so, no bound is given, a bound is not a number or cannot be reached by what is
        bounded, or the lower one is above the upper one.

    >>> Constraint("Core", "D10", upper=15.0).bounds
    (-inf, 15.0)
    """

    structure: str
    objective: Objective | str
    lower: float | None = None
    upper: float | None = None
    quantity: str | Quantity = "physical_dose"
    robust: str = "nominal"

    def __post_init__(self) -> None:
        if self.robust not in _ROBUST:
            raise UnknownNameError("robustness of a constraint", self.robust, _ROBUST)
        objective = metric_objective(self.objective, 1.0) if isinstance(self.objective, str) else self.objective
        check_term(self, self.structure, objective, self.quantity)
        if self.lower is None and self.upper is None:
            raise InputError(f"the constraint on {self.structure!r} needs lower=, upper= or both")
        for key, bound in (("lower", self.lower), ("upper", self.upper)):
            if bound is not None and (not is_number(bound) or bound != bound):
                raise InputError(f"{key} of the constraint on {self.structure!r} must be a number, got {bound!r}")
            if bound is not None and isinstance(objective, VolumeAtDose) and not 0.0 <= bound <= 100.0:
                raise InputError(
                    f"{key} of {self.label!r} is a share of the structure in [0, 100] %, got {bound:g}; a bound in Gy "
                    "belongs to a metric such as D10"
                )
            object.__setattr__(self, key, None if bound is None else float(bound))
        low, high = self.bounds
        if high < 0.0:
            raise InputError(f"upper of {self.label!r} is {high:g}, but {objective.name} is never below 0")
        if low > high:
            raise InputError(f"the constraint on {self.structure!r} has lower {low:g} above upper {high:g}")

    @property
    def bounds(self) -> tuple[float, float]:
        """Lower and upper bound, infinite where there is none."""
        return (
            -math.inf if self.lower is None else float(self.lower),
            math.inf if self.upper is None else float(self.upper),
        )

    @property
    def metric(self) -> str | None:
        """The written name of the metric that is bounded; None where it is the value of an objective."""
        return self.objective if isinstance(self.objective, str) else None

    @property
    def label(self) -> str:
        """A short name for messages and reports."""
        return term_label(self.structure, self.objective, self.quantity)

    def function(self, volume: float = math.nan) -> Objective:
        """Return the objective whose value is bounded.

        Parameters
        ----------
        volume : float [cm3]
            Volume of the structure, needed for metrics such as D0.1cc.
        """
        return metric_objective(self.objective, volume) if isinstance(self.objective, str) else self.objective

    def value_unit(self) -> str:
        """Return the unit of the bounds."""
        quantity = self.quantity if isinstance(self.quantity, Quantity) else QUANTITIES.get(self.quantity)
        return self.function(1.0).value_unit(quantity.unit)

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Self:
        """Return the constraint that plain data describes, as in a plan file.

        Parameters
        ----------
        spec : mapping
            ``structure``; ``metric`` (its written name), or ``objective`` (its registered name) and ``parameters``;
            ``lower``, ``upper`` or both, numbers or texts with their unit such as ``15 Gy``; ``quantity`` as in `Goal`;
            ``robust``.

        Raises
        ------
        UnknownNameError
            When a key, an objective, a parameter or a quantity is misspelt; names the nearest.
        InputError
            When something is missing or of the wrong kind, or a bound is in another unit than what it bounds.

        >>> Constraint.from_spec({"structure": "Core", "metric": "D10", "upper": "15 Gy"}).upper
        15.0
        """
        where = f"constraint on {spec.get('structure', '(no structure)')!r}"
        for key in spec:
            if key not in _KEYS:
                raise UnknownNameError(f"key of the {where}", str(key), _KEYS)
        if "structure" not in spec:
            raise InputError(f"the {where} lacks 'structure'")
        if (spec.get("metric") is None) == (spec.get("objective") is None):
            raise InputError(f"the {where} states either a metric such as D10, or an objective and its parameters")
        if spec.get("metric") is not None and spec.get("parameters"):
            raise InputError(f"the {where} bounds the metric {spec['metric']!r}, which has no parameters")
        if spec.get("metric") is not None:
            bounded: Objective | str = str(spec["metric"])
        else:
            bounded = objective_from_spec(spec["objective"], spec.get("parameters") or {})
        quantity = quantity_from_spec("physical_dose" if spec.get("quantity") is None else spec["quantity"])
        # Why: what has no bounds yet knows the unit that bounds must have.
        unit = cls(spec["structure"], bounded, upper=math.inf if not _is_volume(bounded) else 100.0, quantity=quantity)
        ends = {key: _number(spec[key], key, unit) for key in ("lower", "upper") if spec.get(key) is not None}
        return cls(spec["structure"], bounded, quantity=quantity, robust=spec.get("robust") or "nominal", **ends)

    def to_spec(self) -> dict[str, Any]:
        """Return plain data from which `from_spec` makes the constraint again."""
        spec: dict[str, Any] = {"structure": self.structure}
        if isinstance(self.objective, str):
            spec["metric"] = self.objective
        else:
            spec |= {"objective": self.objective.name, "parameters": self.objective.parameters()}
        bounds = {"lower": self.lower, "upper": self.upper}
        spec |= bounds | {"quantity": quantity_to_spec(self.quantity)}
        return spec if self.robust == "nominal" else spec | {"robust": self.robust}


def metric_objective(name: str, volume: float) -> Objective:
    """Return the objective whose value is a metric.

    Parameters
    ----------
    name : str
        As it is written: see `METRIC_FORMS`.
    volume : float [cm3]
        Volume of the structure, for D..cc.

    Raises
    ------
    InputError
        When no metric that can be bounded is written so.

    >>> metric_objective("D0.1cc", volume=2.0)
    DoseAtVolume(volume=0.05)
    >>> metric_objective("V20Gy", volume=2.0).reference
    20.0
    """
    if name in _PLAIN:
        return _PLAIN[name]
    match = _METRIC.fullmatch(name)
    if match is not None:
        kind, unit, number = match["kind"], match["unit"], float(match["number"].replace("_", "."))
        if kind == "D" and unit in (None, "%") and 0.0 <= number <= 100.0:
            return DoseAtVolume(number / 100.0)
        if kind == "D" and unit == "cc" and number >= 0.0:
            return DoseAtVolume(min(number / volume, 1.0))
        if kind == "V" and unit in (None, "Gy"):
            return VolumeAtDose(number)
        if kind == "gEUD" and unit is None and number != 0.0:
            return EUD(exponent=number, form="value")
    raise InputError(f"no metric that can be bounded is written {name!r}; expected one of {METRIC_FORMS}")


@dataclass(frozen=True)
class Kept:
    """What a bounded metric is, and by how much that is off its bounds.

    Parameters
    ----------
    constraint : Constraint
        What is bounded.
    value : float
        What it is [unit of the bounds].

    >>> print(Kept(Constraint("Core", "D10", upper=15.0), 15.4))
    Core D10 15.4 Gy > 15 Gy by 0.4 Gy
    """

    constraint: Constraint
    value: float

    @property
    def excess(self) -> float:
        """By how much the value lies above its upper (> 0) or below its lower bound (< 0); 0 within them."""
        low, high = self.constraint.bounds
        return max(self.value - high, 0.0) - max(low - self.value, 0.0)

    def allowance(self, violation: float) -> float:
        r"""Return by how much the value may be off where doses may be off by `violation` [unit of the bounds].

        A squared penalty of bound b may be off by :math:`(\sqrt{b} + v)^2 - b`.
        """
        if not self.constraint.value_unit().endswith("^2"):
            return violation
        bound = self.constraint.bounds[1 if self.excess > 0.0 else 0]
        return violation**2 + 2.0 * violation * math.sqrt(max(bound, 0.0)) if math.isfinite(bound) else violation

    def is_at_bound(self, violation: float) -> bool:
        """Say whether the value is at one of its bounds or beyond, to within what it may be off."""
        low, high = self.constraint.bounds
        return min(self.value - low, high - self.value) <= self.allowance(violation)

    def __str__(self) -> str:
        constraint, unit = self.constraint, self.constraint.value_unit()
        quantity = constraint.quantity if isinstance(constraint.quantity, str) else constraint.quantity.name
        of = "" if quantity == "physical_dose" else f" of {quantity}"
        what = constraint.metric or constraint.function().name
        text = f"{constraint.structure} {what}{of}{_ROBUST[constraint.robust]} {self.value:.4g} {unit}"
        low, high = constraint.bounds
        if self.excess > 0.0:
            return f"{text} > {high:g} {unit} by {self.excess:.2g} {unit}"
        if self.excess < 0.0:
            return f"{text} < {low:g} {unit} by {-self.excess:.2g} {unit}"
        return text


def worst_kept(kept: Sequence[Kept]) -> Kept:
    """Return what is farthest beyond its bounds, or nearest to one of them, of a metric in several scenarios.

    >>> core = Constraint("Core", "D10", upper=15.0, robust="worst")
    >>> worst_kept([Kept(core, 14.0), Kept(core, 14.5)]).value
    14.5
    """
    return min(
        kept, key=lambda entry: min(entry.value - entry.constraint.bounds[0], entry.constraint.bounds[1] - entry.value)
    )


def relaxation(kept: Sequence[Kept], violation: float) -> str:
    """Return in words what was missed, by how much, and what to relax.

    Parameters
    ----------
    kept : sequence of Kept
        All constraints and what they reach.
    violation : float
        By how much doses may be off.

    >>> core, target = Constraint("Core", "D10", upper=15.0), Constraint("PTV", "D95", lower=47.5)
    >>> print(relaxation([Kept(core, 15.4), Kept(target, 47.5)], 0.1))
    Core D10 15.4 Gy > 15 Gy by 0.4 Gy. Relax it to 15.4 Gy, or what is held against it: PTV D95 >= 47.5 Gy.
    """
    missed = [entry for entry in kept if abs(entry.excess) > entry.allowance(violation)]
    against = [_stated(entry.constraint) for entry in kept if entry not in missed and entry.is_at_bound(violation)]
    told = "; ".join(str(entry) for entry in missed)
    relaxed = ", ".join(f"{entry.value:.4g} {entry.constraint.value_unit()}" for entry in missed)
    which = "it" if len(missed) == 1 else "them"
    held = f", or what is held against {which}: {', '.join(against)}" if against else ", or add beams or lower weights"
    return f"{told}. Relax {which} to {relaxed}{held}."


def _stated(constraint: Constraint) -> str:
    """Return a constraint as a physicist writes it: ``PTV D95 >= 47.5 Gy``."""
    unit, (low, high) = constraint.value_unit(), constraint.bounds
    what = f"{constraint.structure} {constraint.metric or constraint.function().name}"
    ends = [f"{sign} {bound:g} {unit}" for sign, bound in ((">=", low), ("<=", high)) if math.isfinite(bound)]
    return f"{what} {' and '.join(ends)}"


def refuse_contradictions(constraints: Sequence[Constraint]) -> None:
    """Raise `InputError` naming two constraints that no dose can keep together, whatever the beams.

    These are bounds on one metric that leave nothing between them, and doses in the wrong order: at least 20 Gy at 10 %
    of a structure of which 5 % may get no more than 15 Gy, a mean above the largest dose, 98 % of the volume at 50 Gy
    of which only 90 % may reach 40.
    """
    for first in constraints:
        for second in constraints:
            if (first.structure, first.quantity) != (second.structure, second.quantity):
                continue
            # Why: what holds in every scenario holds in the nominal one, too, but not so what holds in the mean.
            if first.robust != second.robust and "expected" in (first.robust, second.robust):
                continue
            same = first.function(1.0) == second.function(1.0) and first.bounds[0] > second.bounds[1]
            if same or _out_of_order(first, second):
                raise InputError(
                    f"constraints contradict each other: {_end(first, 0)}, but {_end(second, 1)}: loosen one"
                )


def _out_of_order(first: Constraint, second: Constraint) -> bool:
    """Say whether the lower bound of one asks more at a volume than the upper bound of another allows at a smaller."""
    (volume, least), (other, most) = _dose_at(first, 0), _dose_at(second, 1)
    return least > most and volume >= other


def _dose_at(constraint: Constraint, end: int) -> tuple[float, float]:
    """Return a volume and the bound on its dose that the lower (end 0) or upper (1) bound of a constraint implies."""
    function, bound = constraint.function(1.0), constraint.bounds[end]
    if isinstance(function, VolumeAtDose):
        means_something = bound > 0.0 if end == 0 else bound < 100.0
        return (0.01 * bound, function.reference) if means_something and math.isfinite(bound) else _NOTHING[end]
    if isinstance(function, DoseAtVolume) and "cc" not in (constraint.metric or ""):
        return function.volume, bound
    # Why: a mean, and the dose at a volume whose share is not known, lie between the smallest and the largest dose.
    is_dose = (
        isinstance(function, DoseAtVolume)
        or function == Mean()
        or (isinstance(function, EUD) and function.form == "value")
    )
    return (float(end), bound) if is_dose else _NOTHING[end]


def _end(constraint: Constraint, end: int) -> str:
    return f"{constraint.label} {'><'[end]}= {constraint.bounds[end]:g} {constraint.value_unit()}"


def _is_volume(bounded: Objective | str) -> bool:
    return isinstance(metric_objective(bounded, 1.0) if isinstance(bounded, str) else bounded, VolumeAtDose)


def _number(bound: Any, key: str, constraint: Constraint) -> float:
    """Return a bound as a number, refusing one whose unit is not that of the constraint's value."""
    if not isinstance(bound, str):
        return bound  # type: ignore[no-any-return]
    match, unit = _BOUND.fullmatch(bound.strip()), constraint.value_unit()
    if match is None:
        raise InputError(f"{key} of {constraint.label!r} must be a number, or one with its unit, got {bound!r}")
    if match["unit"] not in (None, unit):
        other = f", or bound a metric in {match['unit']}" if match["unit"] in ("%", "Gy") else ""
        raise InputError(f"{key} of {constraint.label!r} is in {unit}, got {bound!r}: give the bound in {unit}{other}")
    return float(match["number"])
