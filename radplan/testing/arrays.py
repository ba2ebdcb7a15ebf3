"""Devices, tolerances and finite differences that the checks share."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from radplan import arrays
from radplan.arrays import Array, Device, native_device, to_numpy
from radplan.errors import InputError

DEVICES = ("numpy", "torch:cpu", "array_api_strict", "array_api_strict:device1", "jax", "torch:cuda", "cupy")
"""Where radplan is tested, as far as it is installed; NumPy arrays are handed over read-only."""
GRADIENT_TOLERANCE = {"float64": 1e-6, "float32": 2e-4}
ADJOINT_TOLERANCE = {"float64": 1e-12, "float32": 1e-6}
STEP = 1e-5


def available_devices() -> tuple[str, ...]:
    """Return those of `DEVICES` that this machine has.

    >>> "numpy" in available_devices()
    True
    """
    found = []
    for name in DEVICES:
        try:
            arrays.as_device(name)
        except InputError:
            continue
        found.append(name)
    return tuple(found)


@dataclass(frozen=True)
class Placed:
    """A target and a dtype that something is checked on."""

    device: Device
    dtype: str

    @property
    def label(self) -> str:
        return f"on {self.device.name} in {self.dtype}"

    def put(self, values: Any) -> Array:
        """Return a fresh array here; a NumPy one cannot be written to."""
        made = self.device.asarray(np.array(values, dtype=self.dtype), self.dtype)
        if self.device.backend == "numpy":
            made.flags.writeable = False
        return made

    def called(self, function: Callable[..., Array], inputs: Sequence[Any], label: str, shape: tuple[int, ...]) -> Any:
        """Call a function with host values put here, check its manners, and return its result on the host."""
        here = [self.put(values) for values in inputs]
        before = [to_numpy(values).copy() for values in here]
        try:
            result = function(*here)
        except ValueError as error:
            if "read-only" not in str(error):
                raise
            raise AssertionError(f"{label} writes into its inputs; make a new array instead ({error})") from error
        for one, old in zip(here, before, strict=True):
            assert np.array_equal(to_numpy(one), old), f"{label} changed its inputs; make a new array instead"
        self.belongs(result, shape, label)
        return to_numpy(result)

    def belongs(self, result: Array, shape: tuple[int, ...], label: str) -> None:
        """Assert that an array has this backend, device and dtype, the shape, and finite values."""
        assert arrays.backend_name(result) == self.device.backend, (
            f"{label} returned an array of {arrays.backend_name(result)} for inputs of {self.device.backend}: take the "
            "namespace from the inputs"
        )
        assert native_device(result) == native_device(self.put(0.0)), (
            f"{label} moved the data to {native_device(result)}"
        )
        assert tuple(result.shape) == shape, f"{label} must return shape {shape}, got {tuple(result.shape)}"
        assert result.dtype == self.device.dtype(self.dtype), f"{label} must keep {self.dtype}, got {result.dtype}"
        assert arrays.all_finite(result), f"{label} is not finite: {to_numpy(result)}"


def placed(devices: Sequence[str]) -> list[Placed]:
    """Return every device in each floating dtype that it has."""
    chosen = [arrays.as_device(name) for name in devices]
    return [Placed(device, dtype) for device in chosen for dtype in ("float64", "float32") if has_dtype(device, dtype)]


def has_dtype(place: Device, dtype: str) -> bool:
    """Say whether a device has a dtype."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = place.asarray([0.0], dtype)
    return bool(made.dtype == place.dtype(dtype))


def widest(place: Device) -> str:
    """Return the widest floating dtype of a device."""
    return "float64" if has_dtype(place, "float64") else "float32"


def wanted_devices(devices: Iterable[str] | None) -> tuple[str, ...]:
    """Return the devices asked for, or all that are there."""
    names = available_devices() if devices is None else tuple(devices)
    if not names:
        raise InputError("give at least one device string, such as 'numpy'")
    return names


def examples_of(given: Any, registry: Any, base: type) -> list[Any]:
    """Return the examples of a plug-in given by name, class or instance."""
    if isinstance(given, base):
        return [given]
    cls = registry.get(given) if isinstance(given, str) else given
    assert isinstance(cls, type), f"expected a name, a class or an instance of {base.__name__}, got {given!r}"
    assert issubclass(cls, base), f"{cls.__name__} must derive from {base.__name__}"
    examples = cls.examples()  # type: ignore[attr-defined]
    assert isinstance(examples, list), f"{cls.__name__}.examples() must return a list, got {examples!r}"
    assert examples, f"{cls.__name__}.examples() must return at least one instance"
    assert all(type(example) is cls for example in examples), f"{cls.__name__}.examples() must return its own instances"
    return examples


def assert_adjoint(forward: float, back: float, scale: float, tolerance: float, label: str) -> None:
    """Raise AssertionError unless two inner products agree relatively."""
    assert abs(forward - back) <= tolerance * scale, (
        f"{label}: <Ax, y> = {forward:.15g} but <x, A'y> = {back:.15g}; relative to |Ax||y| they differ by "
        f"{abs(forward - back) / scale:.2g}, allowed {tolerance:g}: the pullback is not the transpose of the forward"
    )


def assert_close(found: Any, expected: Any, tolerance: float, label: str) -> None:
    """Assert that values agree to `tolerance` of the largest expected one."""
    error = float(np.max(np.abs(np.asarray(found, "float64") - expected), initial=0.0))
    largest = float(np.max(np.abs(expected), initial=0.0))
    assert error <= tolerance * max(largest, 1e-9), (
        f"{label}: largest error {error:.3g}, allowed {tolerance:g} of {largest:.3g}; found {found}, expected "
        f"{expected}"
    )


def central_difference(function: Callable[[Any], Any], at: Any, direction: Any, step: float = STEP) -> Any:
    """Return the derivative along a direction by central differences of two steps, extrapolated (Richardson)."""
    wide = (function(at + step * direction) - function(at - step * direction)) / (2.0 * step)
    narrow = (function(at + 0.5 * step * direction) - function(at - 0.5 * step * direction)) / step
    return (4.0 * narrow - wide) / 3.0


def on_host(function: Callable[..., Array], place: Device) -> Callable[..., Any]:
    """Return a function on host arrays for one of the arrays of a device."""
    dtype = widest(place)
    return lambda *inputs: to_numpy(function(*(place.asarray(one, dtype) for one in inputs)))


def uniform(low: float, high: float, shape: tuple[int, ...], seed: int) -> Any:
    """Return seeded random numbers."""
    return np.random.default_rng(seed).uniform(low, high, shape)
