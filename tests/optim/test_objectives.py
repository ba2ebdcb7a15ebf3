"""Objectives: gradients against finite differences, edge cases, weights and what wrong parameters are told."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.arrays import as_device, native_device, to_numpy
from radplan.errors import InputError
from radplan.optim.objectives import (
    EUD,
    OBJECTIVES,
    DoseMimicking,
    MaxDVH,
    Maximum,
    Mean,
    MinDVH,
    SquaredDeviation,
    SquaredOverdosing,
)

BACKENDS = ["numpy", "torch:cpu", "array_api_strict", "array_api_strict:device1"]
EXAMPLES = [pytest.param(one, id=f"{cls.name}-{n}") for cls in OBJECTIVES for n, one in enumerate(cls.examples())]


def case(count=41):
    rng = np.random.default_rng(3)
    weights = rng.random(count)
    return 3.0 * rng.random(count), weights / weights.sum()


@pytest.mark.parametrize("objective", EXAMPLES)
def test_gradient_is_the_slope_of_the_value(objective):
    values, weights = case()
    gradient = objective.gradient(values, weights)
    direction = np.random.default_rng(5).standard_normal(values.size)
    step = 1e-6
    up = float(objective.value(values + step * direction, weights))
    down = float(objective.value(values - step * direction, weights))
    assert (up - down) / (2 * step) == pytest.approx(float(gradient @ direction), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("device", BACKENDS)
@pytest.mark.parametrize("objective", EXAMPLES)
def test_every_backend_agrees_and_keeps_dtype_and_device(objective, device):
    values, weights = case()
    expected_value, expected_gradient = objective.value_and_gradient(values, weights)
    for dtype, tolerance in (("float64", 1e-12), ("float32", 2e-4)):
        place = as_device(device)
        v, w = place.asarray(values, dtype), place.asarray(weights, dtype)
        value, gradient = objective.value_and_gradient(v, w)
        assert value.shape == ()
        assert gradient.dtype == v.dtype
        assert native_device(gradient) == native_device(v)
        assert float(value) == pytest.approx(float(expected_value), rel=tolerance)
        np.testing.assert_allclose(to_numpy(gradient), expected_gradient, rtol=10 * tolerance, atol=tolerance)
        np.testing.assert_array_equal(to_numpy(v), values.astype(dtype))


@pytest.mark.parametrize("level", [0.0, 1.0])
@pytest.mark.parametrize("objective", EXAMPLES)
def test_uniform_values_give_finite_results(objective, level):
    for dtype in ("float32", "float64"):
        values, weights = np.full(7, level, dtype), np.full(7, 1 / 7, dtype)
        value, gradient = objective.value_and_gradient(values, weights)
        assert np.isfinite(value)
        assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize("objective", EXAMPLES)
def test_splitting_a_voxel_changes_nothing(objective):
    if isinstance(objective, Maximum) or objective.name == "minimum":
        pytest.skip("the smoothed extremes count voxels")
    if objective.name == "dose_at_volume":
        pytest.skip("a dose at a volume lies between the ranks of two voxels, as D95 of the metrics does")
    values, weights = case()
    split_values, split_weights = np.append(values, values[0]), np.append(weights, 0.25 * weights[0])
    split_weights[0] *= 0.75
    assert float(objective.value(split_values, split_weights)) == pytest.approx(float(objective.value(values, weights)))


@pytest.mark.parametrize("exponent", [-100.0, -8.0, -1.0, 0.5, 1.0, 3.5, 100.0])
def test_eud_has_a_useful_gradient_at_zero(exponent):
    weights = np.full(1000, 1e-3, "float32")
    for values in (np.zeros(1000, "float32"), np.r_[0.0, np.full(999, 60.0)].astype("float32")):
        objective = EUD(70.0, exponent)
        value, gradient = objective.value_and_gradient(values, weights)
        assert np.isfinite(value)
        assert np.all(np.isfinite(gradient))
        assert gradient.min() < 0
        if exponent < 0:
            assert gradient[0] < 0


def test_eud_limits():
    values, weights = case()
    assert float(EUD(exponent=500.0).equivalent(values, weights)) == pytest.approx(values.max(), rel=0.02)
    assert float(EUD(exponent=-500.0).equivalent(values, weights)) == pytest.approx(values.min(), rel=0.02)
    assert float(EUD(exponent=1.0).equivalent(values, weights)) == pytest.approx(weights @ values)
    assert float(EUD(1.0, 2.0, "over").value(np.full(2, 0.5), np.full(2, 0.5))) == 0.0
    assert float(EUD(1.0, 2.0, "under").value(np.full(2, 1.5), np.full(2, 0.5))) == 0.0


def test_eud_ignores_voxels_without_weight():
    value, gradient = EUD(1.0, -20.0).value_and_gradient(np.asarray([0.0, 2.0]), np.asarray([0.0, 1.0]))
    assert float(value) == pytest.approx(1.0)
    np.testing.assert_allclose(gradient, [0.0, 2.0])


def test_dvh_objectives_vanish_exactly_when_the_point_is_met():
    values, weights = np.arange(10.0), np.full(10, 0.1)
    assert float(MaxDVH(6.0, 0.3).value(values, weights)) == pytest.approx(0.0, abs=1e-12)
    assert float(MaxDVH(5.9, 0.3).value(values, weights)) > 0.0
    assert float(MinDVH(3.0, 0.7).value(values, weights)) == pytest.approx(0.0, abs=1e-12)
    assert float(MinDVH(3.1, 0.7).value(values, weights)) > 0.0


@pytest.mark.parametrize("objective", EXAMPLES)
def test_nan_is_not_hidden(objective):
    values, weights = case()
    values[4] = np.nan
    assert np.isnan(float(objective.value(values, weights)))


def test_mean_subgradient():
    values, weights = np.asarray([0.0, 3.0]), np.asarray([0.5, 0.5])
    np.testing.assert_allclose(Mean(1.0).gradient(values, weights), weights)
    np.testing.assert_allclose(Mean(2.0).gradient(values, weights), -weights)
    np.testing.assert_allclose(Mean(1.5).gradient(values, weights), 0.0)


def test_mimicking_is_cut_to_the_structure():
    grid_dose = np.arange(8.0)
    cut = DoseMimicking(grid_dose).on_voxels(lambda volume: volume[[1, 3]])
    assert float(cut.value(np.asarray([1.0, 5.0]), np.full(2, 0.5))) == pytest.approx(2.0)
    with pytest.raises(InputError, match=r"shape \(8,\)"):
        DoseMimicking(grid_dose).value(np.ones(2), np.full(2, 0.5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SquaredDeviation(float("nan")), "reference must be a finite number, got nan"),
        (lambda: SquaredOverdosing("30"), "reference must be a finite number, got '30'"),
        (lambda: MaxDVH(20.0, 30.0), r"fraction of the structure in \[0, 1\], got 30.0; for 30 % write 0.3"),
        (lambda: MinDVH(20.0, -0.1), "got -0.1"),
        (lambda: EUD(1.0, 0.0), "exponent must not be 0"),
        (lambda: EUD(1.0, 2.0, "above"), "form must be one of 'deviation', 'over', 'under', 'value', got 'above'"),
        (lambda: Mean(form="cubic"), "form must be one of 'linear', 'quadratic'"),
        (lambda: DoseMimicking("dose.npz"), "got str"),
        (lambda: DoseMimicking(1.0, overdosing=-1.0), "must be >= 0"),
        (lambda: Maximum(0.0), "width must be > 0"),
    ],
)
def test_wrong_parameters_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make()
