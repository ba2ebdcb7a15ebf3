"""What the standard leaves out: accumulation at repeated indices, interpolation, quantiles, convolution, derivatives.

Each is written in the standard and handed to the backend's own routine where that is faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from radplan.arrays.devices import Array, accumulator, backend_name, like, namespace, native_device, to_numpy
from radplan.errors import InputError


def gather(values: Array, index: Array) -> Array:
    """Return ``values[..., index]`` for an integer index of any shape, along the last axis.

    >>> gather(np.asarray([1.0, 2.0, 3.0]), np.asarray([2, 0])).tolist()
    [3.0, 1.0]
    """
    xp = namespace(values)
    flat = xp.take(values, xp.reshape(index, (-1,)), axis=-1)
    return xp.reshape(flat, tuple(values.shape[:-1]) + tuple(index.shape))


def scatter(count: int, index: Array, values: Array) -> Array:
    """Return zeros ``(..., count)`` with ``values (..., n)`` set at distinct positions ``index (n,)``.

    >>> scatter(4, np.asarray([2, 0]), np.asarray([5.0, 7.0])).tolist()
    [7.0, 0.0, 5.0, 0.0]
    """
    if backend_name(values) == "numpy":
        out = np.zeros((*values.shape[:-1], count), dtype=values.dtype)
        out[..., index] = values
        return out
    if values.ndim == 1:
        return segment_add(count, index, values)
    xp = namespace(values)
    rows = xp.reshape(values, (-1, values.shape[-1]))
    spread = xp.stack([segment_add(count, index, rows[row, :]) for row in range(rows.shape[0])])
    return xp.reshape(spread, tuple(values.shape[:-1]) + (count,))


def segment_add(count: int, index: Array, values: Array) -> Array:
    """Return zeros ``(count,)`` with ``values (n,)`` added at ``index (n,)``; repeated indices accumulate.

    >>> segment_add(3, np.asarray([0, 0, 2]), np.asarray([1.0, 2.0, 4.0])).tolist()
    [3.0, 0.0, 4.0]
    """
    xp = namespace(values)
    backend = backend_name(values)
    if backend == "numpy":
        return np.bincount(index, weights=values, minlength=count).astype(values.dtype, copy=False)
    if backend == "torch":
        return xp.zeros(count, dtype=values.dtype, device=values.device).index_add(0, index, values)
    if backend == "cupy":
        import cupyx

        out = xp.zeros(count, dtype=values.dtype)
        cupyx.scatter_add(out, index, values)
        return out
    if backend == "jax":
        return xp.zeros(count, dtype=values.dtype).at[index].add(values)
    order = xp.argsort(index, stable=True)
    # Why: each sum is a difference of two running ones, which may be much larger.
    sums = xp.cumulative_sum(xp.astype(xp.take(values, order), accumulator(values)), include_initial=True)
    edges = xp.arange(count + 1, dtype=index.dtype, device=native_device(index))
    bounds = xp.searchsorted(xp.take(index, order), edges)
    totals = xp.take(sums, bounds)
    return xp.astype(totals[1:] - totals[:-1], values.dtype)


def interp1(x: Array, nodes: Array, values: Array) -> Array:
    """Return the piecewise linear function through ``(nodes, values)`` at `x`, constant beyond the ends.

    Parameters
    ----------
    x : array of shape (n,)
        Where to evaluate.
    nodes : array of shape (m,)
        Increasing abscissae.
    values : array of shape (..., m)
        Ordinates; several functions may share the nodes.

    Returns
    -------
    array of shape (..., n)

    >>> interp1(np.asarray([0.5, 9.0]), np.asarray([0.0, 1.0]), np.asarray([0.0, 10.0])).tolist()
    [5.0, 10.0]
    """
    xp = namespace(x, nodes, values)
    upper = xp.clip(xp.searchsorted(nodes, x), 1, nodes.shape[0] - 1)
    x0, x1 = xp.take(nodes, upper - 1), xp.take(nodes, upper)
    fraction = xp.clip((x - x0) / (x1 - x0), 0.0, 1.0)
    low, high = gather(values, upper - 1), gather(values, upper)
    return low + fraction * (high - low)


def interp2(row: Array, column: Array, rows: Array, columns: Array, values: Array) -> Array:
    """Return bilinear values of tables on a rectilinear mesh, constant beyond its edges.

    Parameters
    ----------
    row, column : array of shape (n,)
        Where to evaluate.
    rows, columns : array of shape (a,), (b,)
        Increasing mesh lines.
    values : array of shape (..., a, b)
        Tables.

    Returns
    -------
    array of shape (..., n)

    >>> line = np.asarray([0.0, 1.0])
    >>> interp2(np.asarray([0.5]), np.asarray([1.0]), line, line, np.asarray([[0.0, 2.0], [0.0, 4.0]])).tolist()
    [3.0]
    """
    xp = namespace(row, column, values)
    i = xp.clip(xp.searchsorted(rows, row), 1, rows.shape[0] - 1)
    j = xp.clip(xp.searchsorted(columns, column), 1, columns.shape[0] - 1)
    r0, c0 = xp.take(rows, i - 1), xp.take(columns, j - 1)
    u = xp.clip((row - r0) / (xp.take(rows, i) - r0), 0.0, 1.0)
    v = xp.clip((column - c0) / (xp.take(columns, j) - c0), 0.0, 1.0)
    width = columns.shape[0]
    flat = xp.reshape(values, tuple(values.shape[:-2]) + (-1,))
    base = (i - 1) * width + (j - 1)
    top = gather(flat, base) * (1.0 - v) + gather(flat, base + 1) * v
    bottom = gather(flat, base + width) * (1.0 - v) + gather(flat, base + width + 1) * v
    return top * (1.0 - u) + bottom * u


def interp3(volume: Array, index: Array, outside: float = 0.0) -> Array:
    """Return trilinear values of a volume at fractional indices.

    Parameters
    ----------
    volume : array of shape (nz, ny, nx)
        Samples.
    index : array of shape (n, 3)
        Fractional positions ``[z, y, x]`` in voxels.
    outside : float
        Value where a position lies beyond the first or last sample.

    Returns
    -------
    array of shape (n,)

    >>> interp3(np.asarray([[[0.0, 1.0]]]), np.asarray([[0.0, 0.0, 0.25]])).tolist()
    [0.25]
    """
    xp = namespace(volume, index)
    shape = volume.shape
    flat = xp.reshape(volume, (-1,))
    total = xp.zeros(index.shape[0], dtype=volume.dtype, device=native_device(volume))
    inside = xp.ones(index.shape[0], dtype=xp.bool, device=native_device(volume))
    bases, fractions = [], []
    for axis in range(3):
        at = index[:, axis]
        last = shape[axis] - 1
        inside = inside & (at >= 0.0) & (at <= float(last))
        low = xp.clip(xp.floor(at), 0.0, float(max(last - 1, 0)))
        bases.append(xp.astype(low, xp.int64))
        fractions.append(xp.clip(at - low, 0.0, 1.0))
    for dz in (0, 1):
        for dy in (0, 1):
            for dx in (0, 1):
                weight = xp.ones_like(total)
                corner = []
                for axis, step in enumerate((dz, dy, dx)):
                    weight = weight * (fractions[axis] if step else 1.0 - fractions[axis])
                    corner.append(xp.clip(bases[axis] + step, 0, shape[axis] - 1))
                position = (corner[0] * shape[1] + corner[1]) * shape[2] + corner[2]
                total = total + weight * xp.take(flat, position)
    return xp.where(inside, total, xp.full_like(total, outside))


def weighted_sum(values: Array, weights: Array) -> Array:
    """Return the sum of ``values * weights`` as a zero-dimensional array, accumulated in float64 where there is one.

    >>> float(weighted_sum(np.asarray([1.0, 3.0]), np.asarray([0.5, 0.5])))
    2.0
    """
    xp = namespace(values, weights)
    if backend_name(values) == "numpy":
        # Why: not BLAS, whose threads fight with those of the compiled kernels.
        return np.asarray(np.einsum("i,i->", values, weights, dtype=np.float64))
    return xp.sum(values * weights, dtype=accumulator(values))


def quantile(values: Array, weights: Array, level: float) -> Array:
    """Return the largest value that at least the fraction `level` of the weight reaches or exceeds.

    This is the dose D_x of a weighted cumulative DVH, by sorting: exact, no interpolation.

    Parameters
    ----------
    values, weights : array of shape (n,)
        Values and their non-negative weights, which sum to 1.
    level : float
        Fraction of the weight in [0, 1], counted from the highest value down.

    >>> float(quantile(np.asarray([1.0, 2.0, 3.0, 4.0]), np.full(4, 0.25), 0.5))
    3.0
    """
    xp = namespace(values, weights)
    order = xp.argsort(values, descending=True)
    held = xp.cumulative_sum(xp.astype(xp.take(weights, order), accumulator(weights)))
    goal = xp.asarray([level * (1.0 - 1e-9)], dtype=held.dtype, device=native_device(held))
    position = xp.clip(xp.searchsorted(held, goal), 0, values.shape[0] - 1)
    return xp.reshape(xp.take(values, xp.take(order, position)), ())


def fftconvolve(image: Array, kernel: Array) -> Array:
    """Return the linear convolution of images with kernels, cut to the size of the images.

    Parameters
    ----------
    image : array of shape (..., a, b)
        Images.
    kernel : array of shape (..., 2 m + 1, 2 n + 1)
        Kernels centred on their middle sample; leading axes broadcast against those of `image`.

    >>> fftconvolve(np.eye(3), np.asarray([[2.0]])).round(12).tolist()
    [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]]
    """
    xp = namespace(image, kernel)
    size = [image.shape[axis] + kernel.shape[axis] - 1 for axis in (-2, -1)]
    padded = tuple(fast_length(n) for n in size)
    axes = (-2, -1)
    product = xp.fft.rfftn(_pad(image, padded), axes=axes) * xp.fft.rfftn(_pad(kernel, padded), axes=axes)
    full = xp.fft.irfftn(product, s=padded, axes=axes)
    top, left = (kernel.shape[-2] - 1) // 2, (kernel.shape[-1] - 1) // 2
    return xp.astype(full[..., top : top + image.shape[-2], left : left + image.shape[-1]], image.dtype, copy=False)


def fast_length(n: int) -> int:
    """Return the smallest length >= `n` whose only prime factors are 2, 3 and 5.

    >>> fast_length(31)
    32
    """
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1


def _pad(x: Array, size: Sequence[int]) -> Array:
    xp = namespace(x)
    for axis, length in zip((-2, -1), size, strict=True):
        shape = list(x.shape)
        shape[axis] = length - shape[axis]
        x = xp.concat([x, xp.zeros(tuple(shape), dtype=x.dtype, device=native_device(x))], axis=axis)
    return x


def erf(x: Array) -> Array:
    """Return the error function, by the backend's own routine where it has one.

    >>> round(float(erf(np.asarray(1.0))), 6)
    0.842701
    """
    backend = backend_name(x)
    if backend == "torch":
        import torch

        return torch.erf(x)
    if backend == "jax":
        import jax

        return jax.scipy.special.erf(x)
    if backend == "cupy":
        import cupyx.scipy.special as special

        return special.erf(x)
    from scipy.special import erf as host_erf

    return host_erf(x) if backend == "numpy" else like(host_erf(to_numpy(x)), x)


def autodiff_vjp(forward: Callable[..., Array], cotangent: Array, *inputs: Array) -> tuple[Array, ...]:
    """Return the pullback of `cotangent` through a pure function, differentiated by torch or JAX.

    Parameters
    ----------
    forward : callable
        Function of `inputs` that returns one array.
    cotangent : array
        Of the shape and dtype of the result.
    *inputs : array
        Where to differentiate.

    Returns
    -------
    tuple of array
        One cotangent for each input.

    Raises
    ------
    InputError
        On backends that do not differentiate.
    """
    backend = backend_name(cotangent)
    if backend == "torch":
        import torch

        _, pullback = torch.func.vjp(forward, *(values.detach() for values in inputs))
        return tuple(pullback(cotangent))
    if backend == "jax":
        import jax

        _, pullback = jax.vjp(forward, *inputs)
        return tuple(pullback(cotangent))
    raise InputError(
        f"arrays of {backend} cannot be differentiated automatically: write vjp(cotangent, *inputs) beside forward, "
        'or calculate with device="torch"'
    )
