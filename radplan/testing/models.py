"""The checks of an operator, of a forward model and of a problem's gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from radplan import arrays
from radplan.arrays import Array, namespace, to_numpy
from radplan.influence import ForwardModel
from radplan.operators import LinearOperator
from radplan.testing.arrays import (
    ADJOINT_TOLERANCE,
    GRADIENT_TOLERANCE,
    STEP,
    Placed,
    assert_adjoint,
    assert_close,
    central_difference,
    uniform,
    widest,
)


def check_operator(operator: LinearOperator, norms: float | None = None) -> None:
    """Check a linear operator: its adjoint by the dot test, ``<Ax, y> = <x, A'y>``, and its manners with arrays.

    The difference is at most 1e-12 (float64) or 1e-6 (float32) of ``|Ax| |y|``. Column norms are those of unit vectors
    (estimates: within `norms`, relatively), several vectors and a choice of rows give what they should, inputs stay.

    Raises
    ------
    AssertionError
        When a promise is broken.
    """
    rows, columns = operator.shape
    place = Placed(operator.device, operator.dtype)
    tolerance = ADJOINT_TOLERANCE[operator.dtype]
    label = f"{type(operator).__name__} {operator.shape} {place.label}"
    x, y = uniform(0.1, 1.0, (columns,), 5), uniform(-1.0, 1.0, (rows,), 6)
    forward = place.called(operator.apply, [x], f"{label}.apply", (rows,))
    back = place.called(operator.adjoint, [y], f"{label}.adjoint", (columns,))
    assert_adjoint(forward @ y, x @ back, float(np.linalg.norm(forward) * np.linalg.norm(y)), tolerance, label)
    pair = place.called(operator.apply, [np.stack([x, 2.0 * x], axis=1)], f"{label}.apply of two", (rows, 2))
    assert_close(
        pair, np.stack([forward, 2.0 * forward], axis=1), 10.0 * tolerance, f"{label}.apply of two vectors at once"
    )
    lengths = to_numpy(operator.column_norms())
    for column in sorted({0, columns // 2, columns - 1}):
        unit = np.zeros(columns)
        unit[column] = 1.0
        length = np.linalg.norm(place.called(operator.apply, [unit], f"{label}.apply", (rows,)))
        assert_close(lengths[column], length, norms or 100.0 * tolerance, f"{label}.column_norms()[{column}]")
    chosen = np.arange(0, rows, 2)
    part = place.called(operator.restrict(chosen).apply, [x], f"{label}.restrict.apply", (chosen.size,))
    assert_close(part, forward[chosen], 10.0 * tolerance, f"{label}.restrict")


def check_model(model: ForwardModel, x: Array | None = None) -> None:
    """Check a forward model: its pullback against its forward, its shapes, its restriction to fewer voxels.

    A linear model passes the dot test (1e-12 in float64, 1e-6 in float32), another one finite differences (1e-6 in
    float64).

    Parameters
    ----------
    model : ForwardModel
        The model.
    x : array of shape (count,), optional
        Where to check, on the host; a random point near the start when left out.

    Raises
    ------
    AssertionError
        When a promise is broken.
    """
    count, label = model.variables.count, type(model).__name__
    start = np.broadcast_to(to_numpy(model.variables.start), (count,))
    point = start * uniform(0.5, 1.5, (count,), 7) if x is None else np.asarray(to_numpy(x), dtype="float64")
    at = model.device.asarray(point, widest(model.device))
    found = set(model.forward(at))
    assert found == set(model.images), f"{label}.forward gives {found} and states the images {model.images}"
    for name in model.images:
        _check_model_image(model, name, point, (len(model.scenarios.names), len(model.voxels)))
    nothing = to_numpy(model.pullback(at, {}))
    assert nothing.shape == (count,), f"{label}.pullback must return shape ({count},), got {nothing.shape}"
    assert not nothing.any(), f"{label}.pullback: an image without a cotangent counts as zero"
    part = model.restrict(np.asarray(model.voxels)[::2])
    for name in model.images:
        whole, rows = (to_numpy(one.forward(at, [name])[name]) for one in (model, part))
        assert_close(rows, whole[:, ::2], 1e-5, f"{label}.restrict: image {name!r}")


def check_gradient(
    value_and_gradient: Callable[[Array], tuple[Array, Array]],
    x: Array,
    *,
    directions: int = 3,
    step: float = STEP,
    tolerance: float = 1e-6,
) -> None:
    """Check the gradient of any scalar function against finite differences along random directions.

    Parameters
    ----------
    value_and_gradient : callable
        Function of ``x (n,)`` that returns the value and the gradient ``(n,)``, such as ``problem.value_and_gradient``.
    x : array of shape (n,)
        Where to check, float64.
    directions : int
        Number of random directions.
    step : float
        Length of the difference in units of the root mean square of `x`.
    tolerance : float
        Largest error, relative to the length of the gradient.

    Raises
    ------
    AssertionError
        When they differ by more.

    >>> check_gradient(lambda x: ((x**3).sum(), 3 * x**2), np.asarray([1.0, 2.0]))
    """
    gradient = to_numpy(value_and_gradient(x)[1]).astype("float64")
    host = to_numpy(x).astype("float64")

    def value(at: Any) -> Any:
        return to_numpy(value_and_gradient(arrays.like(at, x))[0])

    length = step * max(1e-3, float(np.sqrt(np.mean(host**2))))
    for seed in range(directions):
        direction = np.random.default_rng(seed).standard_normal(host.shape)
        expected = float(central_difference(value, host, direction, length))
        found = float(gradient @ direction)
        size = float(np.linalg.norm(gradient) * np.linalg.norm(direction))
        assert abs(found - expected) <= tolerance * max(size, abs(expected)), (
            f"along a random direction the gradient gives {found:.9g} and finite differences {expected:.9g}; they may "
            f"differ by {tolerance:g} of {size:.3g}"
        )


def _check_model_image(model: ForwardModel, name: str, point: Any, shape: tuple[int, ...]) -> None:
    label = f"{type(model).__name__} image {name!r}"
    wide = widest(model.device)

    def forward(at: Any) -> Array:
        return model.forward(model.device.asarray(at, wide), [name])[name]

    image = forward(point)
    assert tuple(image.shape) == shape, f"{label} must have shape {shape} (scenarios, voxels), got {tuple(image.shape)}"
    assert arrays.all_finite(image), f"{label} is not finite"
    assert arrays.all_finite(forward(np.zeros_like(point))), f"{label} is not finite at x = 0"
    cotangent = uniform(-1.0, 1.0, shape, 8)
    put = namespace(image).astype(model.device.asarray(cotangent, wide), image.dtype)
    gradient = to_numpy(model.pullback(model.device.asarray(point, wide), {name: put})).astype("float64")
    assert gradient.shape == point.shape, f"{label}: pullback must have shape {point.shape}, got {gradient.shape}"
    direction = uniform(-1.0, 1.0, point.shape, 9)
    dtype = arrays.dtype_name(image)
    if model.linear:
        change = to_numpy(forward(direction)).astype("float64")
        scale = float(np.linalg.norm(change) * np.linalg.norm(cotangent))
        assert_adjoint(np.sum(change * cotangent), gradient @ direction, scale, ADJOINT_TOLERANCE[dtype], label)
        return
    slope = np.sum(central_difference(lambda at: to_numpy(forward(at)).astype("float64"), point, direction) * cotangent)
    tolerance = GRADIENT_TOLERANCE["float64"] if dtype == "float64" else 1e-2
    assert_close(gradient @ direction, slope, tolerance, f"{label}: pullback against finite differences")
