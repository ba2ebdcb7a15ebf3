"""Where arrays live: namespace, device and dtype of the data, and the two crossings between host and device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np

from radplan.errors import InputError, UnknownNameError

Array = Any
"""An array of any backend; shapes, units and dtypes stand in the docstrings."""

BACKENDS = ("numpy", "torch", "cupy", "jax", "array_api_strict")


@dataclass(frozen=True)
class Device:
    """Where arrays are put: a namespace and one of its devices, made by `as_device` from a string.

    >>> as_device("numpy").asarray([1, 2], dtype="float32").dtype
    dtype('float32')
    """

    backend: str
    xp: Any
    native: Any
    name: str

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the name alone: modules and devices of a backend do not travel."""
        return as_device, (self.name,)

    def dtype(self, name: str) -> Any:
        """Return the namespace's dtype of that name, for example ``"float32"``."""
        return getattr(self.xp, name)

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """Return `x` on this device; host arrays and arrays of any backend are accepted.

        Parameters
        ----------
        x : array or sequence
            Values.
        dtype : str, optional
            Name of the dtype; the values' own when left out.
        """
        host = x if isinstance(x, np.ndarray) else _host(x)
        wanted = host.dtype.name if dtype is None else dtype
        return self.xp.asarray(np.ascontiguousarray(host, dtype=wanted), dtype=self.dtype(wanted), device=self.native)


def as_device(name: str | Device) -> Device:
    """Return the device that a device string names, ``backend[:device[:index]]``, or a device as it is.

    Known forms: ``numpy``, ``torch``, ``torch:cpu``, ``torch:cuda:1``, ``cupy:0``, ``jax``,
    ``array_api_strict:device1``.

    Raises
    ------
    UnknownNameError
        When the backend has another name.
    InputError
        When the backend is not installed or has no such device.

    >>> as_device("numpy").backend
    'numpy'
    """
    if isinstance(name, Device):
        return name
    backend, _, where = str(name).partition(":")
    if backend not in BACKENDS:
        raise UnknownNameError("array backend", backend, BACKENDS)
    try:
        return _DEVICES[backend](where, name)
    except ImportError as error:
        raise InputError(f"device {name!r} needs the package {backend}, which cannot be imported ({error})") from error


def _numpy_device(where: str, name: str) -> Device:
    if where not in ("", "cpu"):
        raise InputError(f"numpy has the device 'cpu' only, got {name!r}")
    import array_api_compat.numpy as xp

    return Device("numpy", xp, "cpu", "numpy")


def _torch_device(where: str, name: str) -> Device:
    import array_api_compat.torch as xp
    import torch

    try:
        # Why: an array's device has a number even where none is given, and torch holds "cuda" and "cuda:0" apart.
        device = torch.empty(0, device=where or "cpu").device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"torch has no usable device {where!r} here (device {name!r}): {reason}") from error
    return Device("torch", xp, device, name)


def _cupy_device(where: str, name: str) -> Device:
    import array_api_compat.cupy as xp
    import cupy

    try:
        device = cupy.cuda.Device(int(where or 0))
        device.use()
    except (ValueError, cupy.cuda.runtime.CUDARuntimeError) as error:
        raise InputError(f"cupy has no usable device {where!r} here (device {name!r}): {error}") from error
    return Device("cupy", xp, device, name)


def _jax_device(where: str, name: str) -> Device:
    import jax
    import jax.numpy as xp

    kind, _, index = where.partition(":")
    try:
        device = jax.devices(kind or None)[int(index or 0)]
    except (RuntimeError, IndexError, ValueError) as error:
        raise InputError(f"jax has no device {where!r} here (device {name!r}): {error}") from error
    return Device("jax", xp, device, name)


def _strict_device(where: str, name: str) -> Device:
    import array_api_strict as xp

    try:
        device = xp.Device(where.upper() if where in ("", "cpu") else where) if where else xp.Device("CPU_DEVICE")
    except ValueError as error:
        raise InputError(f"array_api_strict has no device {where!r} (device {name!r}): {error}") from error
    return Device("array_api_strict", xp, device, name)


_DEVICES: dict[str, Callable[[str, str], Device]] = {
    "numpy": _numpy_device,
    "torch": _torch_device,
    "cupy": _cupy_device,
    "jax": _jax_device,
    "array_api_strict": _strict_device,
}


def namespace(*arrays: Array) -> Any:
    """Return the array namespace of the data (`array_api_compat.array_namespace`).

    >>> namespace(np.ones(2)).__name__
    'array_api_compat.numpy'
    """
    return array_api_compat.array_namespace(*arrays)


def backend_name(x: Array) -> str:
    """Return the backend of an array: one of `BACKENDS`.

    >>> backend_name(np.ones(2))
    'numpy'
    """
    if isinstance(x, np.ndarray | np.generic):
        return "numpy"
    root = type(x).__module__.partition(".")[0]
    return {"jaxlib": "jax"}.get(root, root)


def dtype_name(x: Array) -> str:
    """Return the name of an array's dtype, such as ``"float32"``, the same on every backend.

    >>> dtype_name(np.ones(1, dtype=np.float32))
    'float32'
    """
    xp = namespace(x)
    for name in ("float32", "float64", "int64", "int32", "bool", "uint8", "int16", "complex64", "complex128"):
        if x.dtype == getattr(xp, name):
            return name
    return str(x.dtype)


def accumulator(x: Array) -> Any:
    """Return the dtype that sums over `x` are held in: float64 where the device has it, else that of `x`."""
    xp = namespace(x)
    if backend_name(x) == "torch" and x.device.type == "mps":
        return x.dtype
    if backend_name(x) == "jax":
        return xp.asarray(0.0).dtype
    return xp.float64


def native_device(x: Array) -> Any:
    """Return the device that holds an array."""
    return array_api_compat.device(x)


def device_of(x: Array) -> Device:
    """Return the device an array lives on, so that more data can be put beside it."""
    backend, device = backend_name(x), native_device(x)
    return Device(backend, namespace(x), device, f"{backend}:{device}")


def like(x: Any, ref: Array, dtype: Any = None) -> Array:
    """Return `x` as an array in the namespace, on the device and in the dtype of `ref`: the only crossing in.

    Parameters
    ----------
    x : array, sequence or number
        Values, on the host or of any backend.
    ref : array
        What the result is to sit beside.
    dtype : dtype of the namespace of `ref`, optional
        Another dtype than that of `ref`.

    >>> like([1, 2], np.zeros(3, dtype=np.float32)).dtype
    dtype('float32')
    """
    xp = namespace(ref)
    wanted = ref.dtype if dtype is None else dtype
    if not array_api_compat.is_array_api_obj(x) or isinstance(x, np.ndarray | np.generic):
        return (
            xp.asarray(np.asarray(x), dtype=wanted, device=native_device(ref))
            if backend_name(ref) != "numpy"
            else (np.asarray(x, dtype=wanted))
        )
    if backend_name(x) == backend_name(ref):
        moved = x if native_device(x) == native_device(ref) else array_api_compat.to_device(x, native_device(ref))
        return xp.astype(moved, wanted, copy=False)
    return xp.asarray(to_numpy(x), dtype=wanted, device=native_device(ref))


def to_numpy(x: Any) -> Any:
    """Return the values as a NumPy array on the host: the only crossing out."""
    return _host(x)


def _host(x: Any) -> Any:
    if isinstance(x, np.ndarray) or not array_api_compat.is_array_api_obj(x):
        return np.asarray(x)
    backend = backend_name(x)
    if backend == "torch":
        return x.detach().cpu().numpy()
    if backend == "cupy":
        return x.get()
    if backend == "array_api_strict":
        import array_api_strict

        return np.asarray(array_api_strict.asarray(x, device=array_api_strict.Device("CPU_DEVICE"), copy=True)._array)
    return np.asarray(x)


def scalar(x: Any) -> float:
    """Return a zero-dimensional array as a Python float: the only synchronisation with a device.

    >>> scalar(np.asarray(2.5))
    2.5
    """
    return float(x)


def all_finite(x: Array) -> bool:
    """Say whether no value is NaN or infinite (one synchronisation)."""
    xp = namespace(x)
    return bool(xp.all(xp.isfinite(x)))
