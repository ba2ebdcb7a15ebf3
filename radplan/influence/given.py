"""Variables that a caller brings, checked against the bounds of a model and put beside its arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from radplan.arrays import Array, accumulator, like, to_numpy
from radplan.errors import InputError
from radplan.influence.model import ForwardModel

Floats = NDArray[np.float64]


def checked_variables(x: Array, model: ForwardModel) -> Floats:
    """Return variables as a read-only float64 host array, refused unless they fit the model.

    Raises
    ------
    InputError
        Their number is wrong, or one is NaN, infinite or out of the model's bounds.
    """
    values = np.array(to_numpy(x), dtype=np.float64)
    count = model.variables.count
    if values.shape != (count,):
        raise InputError(f"the model has {count} variables, got an array of shape {values.shape}")
    if not np.all(np.isfinite(values)):
        raise InputError(f"{np.count_nonzero(~np.isfinite(values))} of {count} variables are NaN or infinite")
    lower, upper = variable_bounds(model)
    low, high = values < lower, values > upper
    if low.any():
        k = int(np.argmax(low))
        raise InputError(
            f"{low.sum()} of {count} variables lie below their bound: variable {k} is {values[k]:g} < {lower[k]:g}"
        )
    if high.any():
        k = int(np.argmax(high))
        raise InputError(
            f"{high.sum()} of {count} variables lie above their bound: variable {k} is {values[k]:g} > {upper[k]:g}"
        )
    values.flags.writeable = False
    return values


def variable_bounds(model: ForwardModel) -> tuple[Floats, Floats]:
    """Return the lower and upper bounds of a model's variables as host arrays (count,)."""
    count = model.variables.count
    lower = np.broadcast_to(np.asarray(to_numpy(model.variables.lower), dtype=np.float64), (count,))
    upper = np.broadcast_to(np.asarray(to_numpy(model.variables.upper), dtype=np.float64), (count,))
    return lower, upper


def variable_minimum(model: ForwardModel) -> Floats:
    """Return the least that each variable has where it is not zero, as a host array (count,)."""
    least = np.asarray(to_numpy(model.variables.minimum), dtype=np.float64)
    return np.broadcast_to(least, (model.variables.count,))


def on_device(x: Floats, model: ForwardModel) -> Array:
    """Return variables beside the model's arrays, in float64 where the device has it."""
    beside = model.device.asarray(np.zeros(1), "float32")
    return like(np.array(x), beside, dtype=accumulator(beside))  # a copy: torch refuses read-only memory
