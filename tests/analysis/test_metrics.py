"""Plan metrics against closed forms of a linear ramp of dose from 10 to 60 Gy.

On the ramp D_x = 60 - 0.5 x, V_x = 2 (60 - x) and gEUD(a)^a = (60^(a+1) - 10^(a+1)) / (50 (a + 1)); none of these
numbers comes from radplan.
"""

from __future__ import annotations

import numpy as np
import pytest

from radplan.analysis import metrics as m
from radplan.errors import InputError

CELLS = 5000
RAMP = 10.0 + 50.0 * (np.arange(CELLS) + 0.5) / CELLS


@pytest.mark.parametrize(
    ("name", "expected", "tolerance"),
    [
        ("D95", 12.5, 1e-9),
        ("D2", 59.0, 1e-9),
        ("D50", 35.0, 1e-9),
        ("D95%", 12.5, 1e-9),
        ("V20Gy", 80.0, 1e-9),
        ("HI", 48.0 / 35.0, 1e-9),
        ("gEUD(1)", 35.0, 1e-9),
        ("gEUD(8)", 46.641, 1e-3),
        ("gEUD(-10)", 14.633, 1e-3),
        ("Dmean", 35.0, 1e-9),
        ("Dmin", 10.0, 0.0051),
        ("Dmax", 60.0, 0.0051),
        ("D10cc", 55.0, 1e-9),
        ("D0_5cc", 59.75, 1e-9),
    ],
)
def test_linear_ramp(name: str, expected: float, tolerance: float) -> None:
    assert m.metric(name, RAMP, None, volume=100.0) == pytest.approx(expected, abs=tolerance)


def test_partial_voxels_equal_repeated_voxels_for_sums_and_steps() -> None:
    doses, weights = np.array([10.0, 30.0, 20.0]), np.array([1.0, 2.0, 3.0])
    repeated = np.repeat(doses, [1, 2, 3])
    for name in ("Dmean", "Dmin", "Dmax", "V20Gy", "gEUD(4)"):
        assert m.metric(name, doses, weights) == pytest.approx(m.metric(name, repeated), abs=1e-12)


def test_dose_at_volume_is_continuous_in_the_weights() -> None:
    doses = np.array([10.0, 20.0, 30.0])
    before = m.dose_at_volume(doses, [1.0, 1.0, 1.0], 50.0)
    after = m.dose_at_volume(doses, [1.0, 1.0 + 1e-6, 1.0], 50.0)
    assert after == pytest.approx(before, abs=1e-4)


def test_paddick_of_an_isodose_twenty_percent_too_large() -> None:
    assert m.paddick_index(100.0, 120.0, 100.0) == pytest.approx(0.8333, abs=1e-4)
    assert m.paddick_index(100.0, 0.0, 0.0) == 0.0


def test_geud_goes_to_the_extremes_without_overflow() -> None:
    assert m.generalized_eud(RAMP, None, 2000.0) == pytest.approx(60.0, rel=5e-3)
    assert m.generalized_eud(RAMP, None, -2000.0) == pytest.approx(10.0, rel=5e-3)
    assert m.generalized_eud([0.0, 50.0], None, -10.0) == 0.0
    assert m.generalized_eud([0.0, 0.0], None, 8.0) == 0.0


def test_homogeneity_of_no_dose_is_not_a_number() -> None:
    assert np.isnan(m.homogeneity_index([0.0, 0.0]))


def test_small_structure_gives_its_minimum_for_a_larger_volume() -> None:
    assert m.metric("D2cc", [10.0, 20.0], None, volume=0.5) == 10.0


@pytest.mark.parametrize("name", ["D", "D95Gy", "X20", "V20cc", "D120", "gEUD", "dmean"])
def test_a_metric_name_resolves_or_raises(name: str) -> None:
    with pytest.raises(InputError, match=name):
        m.metric(name, RAMP)


def test_bad_numbers_raise() -> None:
    with pytest.raises(InputError, match="exponent other than 0"):
        m.generalized_eud(RAMP, None, 0.0)
    with pytest.raises(InputError, match="got -1"):
        m.generalized_eud([-1.0, 2.0], None, 2.0)
    with pytest.raises(InputError, match="positive"):
        m.metric("D1cc", RAMP)
    with pytest.raises(InputError, match="no conformity"):
        m.paddick_index(0.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("name", "expected"), [("D95", True), ("Dmean", True), ("gEUD(8)", True), ("V20Gy", False), ("HI", False)]
)
def test_levels_are_told_from_shares(name: str, expected: bool) -> None:
    assert m.is_level(name) is expected
