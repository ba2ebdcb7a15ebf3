"""Checks of what plug-ins promise, for the author of a quantity, objective, operator, model, solver or engine.

Each check raises AssertionError and says what was found and what was promised. The suite of radplan runs the same
checks over its own registries.

>>> check_quantity("effect", devices=["numpy"])
>>> check_objective("squared_overdosing", devices=["numpy"])
"""

from radplan.testing.arrays import ADJOINT_TOLERANCE, DEVICES, GRADIENT_TOLERANCE, STEP, available_devices
from radplan.testing.engines import check_engine
from radplan.testing.models import check_gradient, check_model, check_operator
from radplan.testing.objectives import check_objective
from radplan.testing.quantities import EXAMPLE_SHAPE, check_quantity
from radplan.testing.solvers import check_solver

__all__ = [
    "ADJOINT_TOLERANCE",
    "DEVICES",
    "EXAMPLE_SHAPE",
    "GRADIENT_TOLERANCE",
    "STEP",
    "available_devices",
    "check_engine",
    "check_gradient",
    "check_model",
    "check_objective",
    "check_operator",
    "check_quantity",
    "check_solver",
]
