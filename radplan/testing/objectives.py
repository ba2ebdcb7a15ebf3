"""The check of an objective: its gradient, dtypes, devices and inputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from radplan import arrays
from radplan.arrays import scalar, to_numpy
from radplan.optim.objectives import OBJECTIVES, Objective
from radplan.testing.arrays import (
    GRADIENT_TOLERANCE,
    Placed,
    assert_close,
    central_difference,
    examples_of,
    on_host,
    placed,
    uniform,
    wanted_devices,
)


def check_objective(objective: str | type[Objective] | Objective, devices: Iterable[str] | None = None) -> None:
    """Check an objective: its gradient against finite differences (1e-6 in float64), and its manners with arrays.

    Its value has no dimensions; the gradient keeps dtype, device and shape; inputs are left alone; both are finite at
    zero values and where a weight is zero; `value_and_gradient` agrees with `value` and `gradient`.

    Parameters
    ----------
    objective : str, class or Objective
        A registered name or a class, whose `examples` are checked, or one instance.
    devices : iterable of str, optional
        Device strings; all that this machine has when left out. The first one gives the finite differences.

    Raises
    ------
    AssertionError
        When a promise is broken.
    """
    names = wanted_devices(devices)
    count = 7
    values = uniform(0.1, 2.9, (count,), 3)
    weights = uniform(0.0, 1.0, (count,), 4)
    weights[2] = 0.0
    weights /= weights.sum()
    for example in examples_of(objective, OBJECTIVES, Objective):
        first = arrays.as_device(names[0])
        host = on_host(lambda v, own=example, at=first: own.value(v, at.asarray(weights, "float64")), first)
        expected = np.asarray([central_difference(host, values, step) for step in np.eye(count)])
        for place in placed(names):
            _check_objective_on(example, place, values, weights, expected)


def _check_objective_on(objective: Objective, place: Placed, values: Any, weights: Any, expected: Any) -> None:
    label = f"objective {objective.name!r} ({objective!r}) {place.label}"
    for at, given in (("", values), (" at zero values", np.zeros_like(values))):
        here, shares = place.put(given), place.put(weights)
        value = objective.value(here, shares)
        assert tuple(value.shape) == (), f"value of {label} must have no dimensions, got shape {tuple(value.shape)}"
        assert np.isfinite(scalar(value)), f"value{at} of {label} is not finite: {scalar(value)}"
        found = place.called(objective.gradient, [given, weights], f"gradient{at} of {label}", values.shape)
        both = objective.value_and_gradient(here, shares)
        tolerance = GRADIENT_TOLERANCE[place.dtype]
        assert_close(scalar(both[0]), scalar(value), tolerance, f"value_and_gradient{at} of {label}: value")
        assert_close(to_numpy(both[1]), found, tolerance, f"value_and_gradient{at} of {label}: gradient")
        if not at:
            assert_close(found, expected, tolerance, f"gradient of {label} against finite differences")
