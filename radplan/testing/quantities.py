"""The check of a quantity: its vjp, dtypes, devices and inputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from radplan import arrays
from radplan.arrays import Array, Device
from radplan.quantities.base import QUANTITIES, Quantity, voxel_fields
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
    widest,
)

EXAMPLE_SHAPE = (2, 4)
"""Scenarios and voxels that quantities are checked on."""


def check_quantity(quantity: str | type[Quantity] | Quantity, devices: Iterable[str] | None = None) -> None:
    """Check a quantity: its pullback against finite differences (1e-6 in float64), and its manners with arrays.

    It keeps dtype, device and shape, leaves its inputs alone, works elementwise, and is finite at zero dose. A quantity
    without a `vjp` of its own is differentiated where the device can do so.

    Parameters
    ----------
    quantity : str, class or Quantity
        A registered name or a class, whose `examples` are checked, or one instance.
    devices : iterable of str, optional
        Device strings; all that this machine has when left out. The first one gives the finite differences.

    Raises
    ------
    AssertionError
        When a promise is broken.
    """
    examples = examples_of(quantity, QUANTITIES, Quantity)
    names = wanted_devices(devices)
    for example in examples:
        inputs = [uniform(0.3, 3.0, EXAMPLE_SHAPE, seed) for seed, _ in enumerate(example.needs)]
        cotangent = uniform(-1.0, 1.0, EXAMPLE_SHAPE, 99)
        slopes = _elementwise_slopes(example, arrays.as_device(names[0]), inputs)
        for place in placed(names):
            _check_quantity_on(example, place, inputs, cotangent, [cotangent * slope for slope in slopes])


def _filled(quantity: Quantity, place: Placed) -> Quantity:
    """Return the quantity with its voxel parameters put beside the images."""
    parameters = {}
    for seed, name in enumerate(voxel_fields(type(quantity))):
        given = vars(quantity)[name]
        values = uniform(0.05, 0.5, (1, EXAMPLE_SHAPE[1]), 50 + seed) if given is None else np.asarray(given, "float64")
        spread = np.broadcast_to(values, (1, EXAMPLE_SHAPE[1])) if values.ndim == 0 else np.atleast_2d(values)
        parameters[name] = place.put(spread)
    return replace(quantity, **parameters)  # type: ignore[type-var]


def _elementwise_slopes(quantity: Quantity, place: Device, inputs: Sequence[Any]) -> list[Any]:
    """Return the derivative by each input from finite differences, having checked that it is elementwise."""
    filled = _filled(quantity, Placed(place, widest(place)))
    forward = on_host(filled.forward, place)
    first = [np.where(np.arange(EXAMPLE_SHAPE[1]) == 0, 1.5 * values, values) for values in inputs]
    rest = forward(*first)[:, 1:], forward(*inputs)[:, 1:]
    assert np.array_equal(*rest), f"quantity {quantity.name!r} must be elementwise: voxel 0 changed the other voxels"
    slopes = []
    for number, values in enumerate(inputs):

        def moved(one: Any, at: int = number) -> Any:
            return forward(*inputs[:at], one, *inputs[at + 1 :])

        slopes.append(central_difference(moved, values, np.ones_like(values)))
    return slopes


def _check_quantity_on(
    quantity: Quantity, place: Placed, inputs: Sequence[Any], cotangent: Any, expected: Sequence[Any]
) -> None:
    label = f"quantity {quantity.name!r} ({quantity!r}) {place.label}"
    filled = _filled(quantity, place)
    zeros = [np.zeros(EXAMPLE_SHAPE) for _ in inputs]
    for at, values in (("", inputs), (" at zero dose", zeros)):
        place.called(filled.forward, values, f"forward{at} of {label}", EXAMPLE_SHAPE)
    if type(quantity).vjp is Quantity.vjp and place.device.backend not in ("torch", "jax"):
        return
    for at, values in (("", inputs), (" at zero dose", zeros)):
        parts = filled.vjp(place.put(cotangent), *(place.put(one) for one in values))
        assert isinstance(parts, tuple), f"vjp of {label} must return a tuple, got {type(parts).__name__}"
        assert len(parts) == len(quantity.needs), (
            f"vjp of {label} must return one cotangent for each of {quantity.needs}, got {len(parts)}"
        )
        for number, need in enumerate(quantity.needs):

            def part(given: Array, *rest: Array, number: int = number) -> Array:
                return filled.vjp(given, *rest)[number]

            what = f"vjp{at} for {need!r} of {label}"
            found = place.called(part, [cotangent, *values], what, EXAMPLE_SHAPE)
            if not at:
                assert_close(
                    found, expected[number], GRADIENT_TOLERANCE[place.dtype], f"{what} against finite differences"
                )
