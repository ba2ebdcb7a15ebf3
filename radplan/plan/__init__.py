"""The plan: variables, the model they drive, and everything a physicist reads off them as course totals."""

from radplan.plan.course import Plan
from radplan.plan.deliverable import deliverable, deliverable_at
from radplan.plan.planning import DEFAULT_FRACTIONS, evaluate, optimize

__all__ = ["DEFAULT_FRACTIONS", "Plan", "deliverable", "deliverable_at", "evaluate", "optimize"]
