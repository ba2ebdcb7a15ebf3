"""Cumulative DVHs on weighted voxels."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.analysis.dvh import DVH, checked, common_levels, cumulative_dvh
from radplan.errors import InputError


def test_falls_from_one_hundred_to_zero() -> None:
    doses = np.random.default_rng(1).uniform(0, 60, 500)
    volume = cumulative_dvh(doses, None, np.linspace(0, 61, 200))
    assert volume[0] == 100.0
    assert volume[-1] == 0.0
    assert np.all(np.diff(volume) <= 1e-12)


def test_a_voxel_of_weight_three_counts_as_three_voxels() -> None:
    levels = np.linspace(0, 50, 101)
    weighted = cumulative_dvh([10.0, 20.0, 40.0], [1.0, 3.0, 2.0], levels)
    repeated = cumulative_dvh([10.0, 20.0, 20.0, 20.0, 40.0, 40.0], None, levels)
    np.testing.assert_allclose(weighted, repeated, atol=1e-12)


def test_a_level_on_a_voxel_value_includes_the_voxel() -> None:
    assert cumulative_dvh([10.0, 20.0], None, [20.0])[0] == 50.0


def test_voxels_without_weight_do_not_count() -> None:
    values, weights = checked([5.0, 99.0], [2.0, 0.0])
    assert values.tolist() == [5.0]
    assert weights.tolist() == [1.0]


def test_volume_in_cubic_centimetres() -> None:
    curve = DVH("PTV", "physical_dose", "Gy", np.array([0.0, 1.0]), np.array([100.0, 25.0]), 8.0)
    assert curve.cc.tolist() == [8.0, 2.0]


def test_common_levels_reach_past_the_highest_value_and_survive_zero_dose() -> None:
    assert common_levels({"a": np.array([1.0]), "b": np.array([60.0])})[-1] > 60.0
    assert common_levels({"a": np.zeros(3)})[-1] == 1.0


@pytest.mark.parametrize(
    ("values", "weights", "match"),
    [
        ([], None, "without voxels"),
        ([1.0, 2.0], [1.0], "2 values but 1 weights"),
        ([1.0, np.nan], None, "1 of 2 voxel values"),
        ([1.0, 2.0], [1.0, -1.0], "weights must be finite, >= 0"),
        ([1.0, 2.0], [0.0, 0.0], "not all zero"),
    ],
)
def test_bad_input_says_what_is_wrong(values: list[float], weights: list[float] | None, match: str) -> None:
    with pytest.raises(InputError, match=match):
        cumulative_dvh(values, weights, [0.0])
