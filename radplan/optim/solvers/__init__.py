"""Searches for the best variables of a problem; `SOLVERS` names them all."""

from radplan.optim.solvers.augmented_lagrangian import AugmentedLagrangian
from radplan.optim.solvers.base import SOLVERS, Progress, Solution, Solver, Status
from radplan.optim.solvers.ipopt import Ipopt
from radplan.optim.solvers.projected_lbfgs import ProjectedLBFGS
from radplan.optim.solvers.scipy_lbfgsb import ScipyLBFGSB

__all__ = [
    "SOLVERS",
    "AugmentedLagrangian",
    "Ipopt",
    "Progress",
    "ProjectedLBFGS",
    "ScipyLBFGSB",
    "Solution",
    "Solver",
    "Status",
]
