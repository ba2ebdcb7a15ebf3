"""The array backends: NumPy, CuPy, torch, JAX and array_api_strict through the Python array API standard.

This package is the only place that names a dense backend. Everything else takes the namespace, device and dtype from
the data. What the standard leaves out stands here once.
"""

from __future__ import annotations

from radplan.arrays.devices import (
    BACKENDS,
    Array,
    Device,
    accumulator,
    all_finite,
    as_device,
    backend_name,
    device_of,
    dtype_name,
    like,
    namespace,
    native_device,
    scalar,
    to_numpy,
)
from radplan.arrays.memory import free_bytes, require_memory
from radplan.arrays.numerics import (
    autodiff_vjp,
    erf,
    fast_length,
    fftconvolve,
    gather,
    interp1,
    interp2,
    interp3,
    quantile,
    scatter,
    segment_add,
    weighted_sum,
)

__all__ = [
    "Array",
    "BACKENDS",
    "Device",
    "accumulator",
    "all_finite",
    "autodiff_vjp",
    "backend_name",
    "native_device",
    "dtype_name",
    "erf",
    "fast_length",
    "fftconvolve",
    "free_bytes",
    "gather",
    "interp1",
    "interp2",
    "interp3",
    "like",
    "namespace",
    "quantile",
    "require_memory",
    "scalar",
    "scatter",
    "segment_add",
    "as_device",
    "device_of",
    "to_numpy",
    "weighted_sum",
]
