"""Constraints: bounds that an objective's value on one structure must keep."""

from __future__ import annotations

import math
from dataclasses import dataclass

from radplan.errors import InputError
from radplan.optim.goals import check_term, term_label
from radplan.optim.objectives import Objective
from radplan.quantities.base import Quantity


@dataclass(frozen=True)
class Constraint:
    """A bound on the value of an objective: ``lower <= objective(quantity in structure) <= upper``.

    ``Constraint("Core", Mean(), upper=20.0)`` holds the mean dose of the core at 20 Gy or less.

    Parameters
    ----------
    structure : str
        Name of the structure, seen after overlap as in `Goal`.
    objective : Objective
        The function that is bounded.
    lower, upper : float, optional
        Bounds in the unit of the objective's value; at least one.
    quantity : str or Quantity
        As in `Goal`.

    Raises
    ------
    InputError
        When no bound is given, a bound is not a number, or the lower one is above the upper one.

    >>> from radplan.optim.objectives import Mean
    >>> Constraint("Core", Mean(), upper=20.0).bounds
    (-inf, 20.0)
    """

    structure: str
    objective: Objective
    lower: float | None = None
    upper: float | None = None
    quantity: str | Quantity = "physical_dose"

    def __post_init__(self) -> None:
        check_term(self, self.structure, self.objective, self.quantity)
        if self.lower is None and self.upper is None:
            raise InputError(f"the constraint on {self.structure!r} needs lower=, upper= or both")
        for key, bound in (("lower", self.lower), ("upper", self.upper)):
            if bound is not None and (isinstance(bound, bool) or not isinstance(bound, int | float) or bound != bound):
                raise InputError(f"{key} of the constraint on {self.structure!r} must be a number, got {bound!r}")
        low, high = self.bounds
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
    def label(self) -> str:
        """A short name for messages and reports."""
        return term_label(self.structure, self.objective, self.quantity)
