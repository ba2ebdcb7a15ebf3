"""Array functions on every backend, against closed forms and NumPy's own routines."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import signal

from radplan import arrays
from radplan.errors import InputError, UnknownNameError


def test_target_keeps_dtype_and_device(xp_device: arrays.Device) -> None:
    x = xp_device.asarray([1.0, 2.0], "float32")
    assert arrays.dtype_name(x) == "float32"
    assert str(arrays.native_device(x)) == str(xp_device.native)
    moved = arrays.like(np.asarray([3, 4]), x)
    assert arrays.dtype_name(moved) == "float32"
    assert arrays.to_numpy(moved).tolist() == [3.0, 4.0]


@pytest.mark.parametrize(
    ("name", "error"), [("nunpy", UnknownNameError), ("numpy:gpu", InputError), ("torch:cuda:99", InputError)]
)
def test_target_refuses(name: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        arrays.as_device(name)


def test_segment_add_accumulates_repeats(xp_device: arrays.Device, rng: np.random.Generator) -> None:
    index, values = rng.integers(0, 7, 50), rng.random(50)
    got = arrays.segment_add(9, xp_device.asarray(index), xp_device.asarray(values))
    expected = np.zeros(9)
    np.add.at(expected, index, values)
    np.testing.assert_allclose(arrays.to_numpy(got), expected, rtol=1e-13, atol=1e-13)


def test_interp1_is_numpy_interp(xp_device: arrays.Device, rng: np.random.Generator) -> None:
    nodes, values, x = np.sort(rng.random(9)), rng.random(9), rng.random(40) * 1.4 - 0.2
    got = arrays.interp1(*(xp_device.asarray(a) for a in (x, nodes, values)))
    np.testing.assert_allclose(arrays.to_numpy(got), np.interp(x, nodes, values), rtol=1e-12)


def test_interp2_and_3_reproduce_multilinear_functions(xp_device: arrays.Device, rng: np.random.Generator) -> None:
    rows, columns = np.sort(rng.random(5)), np.sort(rng.random(6))
    table = 1.0 + 2.0 * rows[:, None] - 3.0 * columns[None, :] + rows[:, None] * columns[None, :]
    r, c = rng.uniform(rows[0], rows[-1], 30), rng.uniform(columns[0], columns[-1], 30)
    got = arrays.interp2(*(xp_device.asarray(a) for a in (r, c, rows, columns, table)))
    # Within one mesh cell a bilinear function is exact.
    np.testing.assert_allclose(arrays.to_numpy(got), 1.0 + 2.0 * r - 3.0 * c + r * c, rtol=1e-12)
    z, y, x = np.meshgrid(np.arange(3.0), np.arange(4.0), np.arange(5.0), indexing="ij")
    at = rng.random((20, 3)) * np.asarray([2.0, 3.0, 4.0])
    volume = 1.0 + z - 2 * y + 0.5 * x
    got = arrays.interp3(xp_device.asarray(volume), xp_device.asarray(at))
    np.testing.assert_allclose(arrays.to_numpy(got), 1.0 + at[:, 0] - 2 * at[:, 1] + 0.5 * at[:, 2], rtol=1e-12)
    beyond = arrays.interp3(xp_device.asarray(volume), xp_device.asarray(np.asarray([[2.001, 0.0, 0.0]])), outside=-7.0)
    assert arrays.to_numpy(beyond).tolist() == [-7.0]


def test_fftconvolve_is_scipys(xp_device: arrays.Device, rng: np.random.Generator) -> None:
    image, kernel = rng.random((11, 8)), rng.random((5, 7))
    got = arrays.fftconvolve(xp_device.asarray(image), xp_device.asarray(kernel))
    np.testing.assert_allclose(arrays.to_numpy(got), signal.convolve(image, kernel, mode="same"), rtol=1e-10)


def test_quantile_counts_weight_from_the_top(xp_device: arrays.Device) -> None:
    values, weights = xp_device.asarray([10.0, 30.0, 20.0]), xp_device.asarray([0.2, 0.5, 0.3])
    assert [float(arrays.quantile(values, weights, v)) for v in (0.0, 0.5, 0.51, 0.8, 0.95, 1.0)] == [
        30,
        30,
        20,
        20,
        10,
        10,
    ]


def test_erf(xp_device: arrays.Device) -> None:
    x = np.linspace(-3, 3, 13)
    np.testing.assert_allclose(arrays.to_numpy(arrays.erf(xp_device.asarray(x))), [math.erf(v) for v in x], rtol=1e-12)


def test_weighted_sum_accumulates_in_double(xp_device: arrays.Device) -> None:
    values = xp_device.asarray(np.full(100_000, 0.1), "float32")
    weights = xp_device.asarray(np.full(100_000, 1.0), "float32")
    assert float(arrays.weighted_sum(values, weights)) == pytest.approx(100_000 * float(np.float32(0.1)), rel=1e-9)
