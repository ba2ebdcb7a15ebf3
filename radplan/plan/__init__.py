"""The plan: variables, the model they drive, and everything a physicist reads off them as course totals."""

from radplan.plan.course import Plan
from radplan.plan.deliverable import deliverable, deliverable_at
from radplan.plan.pareto import Front, pareto
from radplan.plan.planning import DEFAULT_FRACTIONS, evaluate, optimize
from radplan.plan.priorities import priorities
from radplan.plan.robustness import DVHBand, dvh_bands, plan_of_case, scenario_metrics

__all__ = [
    "DEFAULT_FRACTIONS",
    "DVHBand",
    "Front",
    "Plan",
    "deliverable",
    "deliverable_at",
    "dvh_bands",
    "evaluate",
    "optimize",
    "pareto",
    "plan_of_case",
    "priorities",
    "scenario_metrics",
]
