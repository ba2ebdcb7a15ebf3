"""Sliding windows: fluence, speed and time of sweeps, against fluence integrated independently."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from radplan.delivery.sequencing import FluenceMap, SweepOptions, sliding_window, swept_fluence
from radplan.errors import InputError
from radplan.machines import library_limits

MAPS = arrays(
    np.float64, st.tuples(st.integers(1, 6), st.integers(1, 12)), elements=st.sampled_from((0.0, 20, 50, 100))
)


def options(name, edges, control_points=160):
    limits = library_limits(name).planning()
    mlc = limits.collimator()
    gap = limits.dynamic_gap + 2 * mlc.leaf_offset
    park = None if limits.jaw_bounds(0) is None else edges[0] - 10
    return SweepOptions(limits.leaf_speed, limits.dose_rate() / 60, gap, mlc.transmission, park, control_points)


def least_seconds(values, edges, choice):
    """Seconds that the slowest row needs by the theory of Spirou and Chui, row by row."""
    seconds = 0.0
    for row in values:
        some = np.flatnonzero(row)
        if some.size:
            rises = sum(max(b - a, 0.0) for a, b in zip([0.0, *row[:-1]], row, strict=True))
            way = edges[some[-1] + 1] - edges[some[0]]
            seconds = max(seconds, way / choice.speed + rises / choice.dose_rate)
    return seconds


def open_share(sweep, edges, transmission, steps=4000):
    """Fluence of every column by counting: at each of many moments, the share of the column that is open."""
    moments = (np.arange(steps) + 0.5) / steps * (len(sweep.leading) - 1)
    before = moments.astype(int)
    part = (moments - before)[:, None]
    ends = [(1 - part) * path[before] + part * path[before + 1] for path in (sweep.trailing, sweep.leading)]
    low = np.maximum(ends[0][..., None], edges[:-1])
    high = np.minimum(ends[1][..., None], edges[1:])
    share = (np.maximum(high - low, 0.0) / np.diff(edges)).mean(axis=0)
    return sweep.mu * (transmission + (1 - transmission) * share)


@pytest.mark.parametrize("name", ["TrueBeam", "TrueBeam STx", "Versa HD"])
@pytest.mark.parametrize("beam", range(5))
def test_clinical_maps_are_given_in_the_least_time(shared, name, beam):
    path = shared("oracle/sequencing_oracle.mat")
    reference = scipy.io.loadmat(path, squeeze_me=True, struct_as_record=False)["out"].engel.beam[beam]
    values = np.asarray(reference.fluence, dtype=np.float64)
    values *= 100.0 / values.max()
    edges = 5.0 * (np.arange(values.shape[1] + 1) - 0.5 * values.shape[1])
    choice = options(name, edges)
    sweep = sliding_window(FluenceMap(values, edges), choice)
    swept = sweep.swept
    given_fluence = open_share(sweep, edges, choice.transmission)
    error = np.sqrt(np.mean((given_fluence - values)[swept] ** 2)) / values.max()
    assert error <= 0.02
    np.testing.assert_allclose(
        swept_fluence(sweep, edges, choice.transmission)[swept], given_fluence[swept], atol=0.004 * values.max()
    )
    assert sweep.seconds <= 1.05 * least_seconds(values, edges, choice)
    check_motion(sweep, choice)


@settings(max_examples=80, deadline=None)
@given(values=MAPS)
def test_any_map_is_swept_within_limits(values):
    edges = 5.0 * np.arange(values.shape[1] + 1)
    choice = options("TrueBeam", edges, 320)
    if not values.any():
        with pytest.raises(InputError, match="zero everywhere"):
            sliding_window(FluenceMap(values, edges), choice)
        return
    sweep = sliding_window(FluenceMap(values, edges), choice)
    check_motion(sweep, choice)
    some = values > 0
    error = (open_share(sweep, edges, choice.transmission) - values)[some]
    assert np.sqrt(np.mean(error**2)) <= 0.03 * values.max()


def check_motion(sweep, choice):
    step = sweep.seconds / (len(sweep.leading) - 1)
    for path in (sweep.trailing, sweep.leading):
        assert np.all(np.diff(path, axis=0) >= -1e-9)
        assert np.max(np.diff(path, axis=0)) <= choice.speed * step * (1 + 1e-9)
    assert np.min(sweep.leading - sweep.trailing) >= choice.gap - 1e-9
    assert sweep.mu == pytest.approx(choice.dose_rate * sweep.seconds)


def test_a_sweep_by_hand():
    """One column of 10 MU, 5 mm, 1 mm/s, 1 MU/s, no gap: open for 10 s, crossed in 5 s, 15 s in all."""
    choice = SweepOptions(speed=1.0, dose_rate=1.0, gap=0.0, transmission=0.0, park=-5.0, control_points=16)
    sweep = sliding_window(FluenceMap(np.asarray([[10.0]]), np.asarray([0.0, 5.0])), choice)
    assert (sweep.seconds, sweep.mu) == (15.0, 15.0)
    np.testing.assert_allclose(sweep.leading[:, 0], np.minimum(np.arange(16.0), 5.0))
    np.testing.assert_allclose(sweep.trailing[:, 0], np.maximum(np.arange(16.0) - 10.0, 0.0))


def test_without_jaws_no_pair_waits_beside_its_fluence():
    """A row that needs half the time of the other goes more slowly; nothing is open outside its columns."""
    values = np.asarray([[0.0, 0, 50, 50, 0, 0], [100, 20, 100, 20, 100, 20]])
    edges = 5.0 * np.arange(7.0)
    choice = SweepOptions(speed=30.0, dose_rate=10.0, gap=1.3, transmission=0.005, park=None)
    sweep = sliding_window(FluenceMap(values, edges), choice)
    given_fluence = open_share(sweep, edges, choice.transmission)
    assert np.sqrt(np.mean((given_fluence - values) ** 2)) <= 2.0
    assert np.min(sweep.trailing[:, 0]) >= 10.0 - 1e-9
    assert np.max(sweep.leading[:, 0]) <= 20.0 + 1e-9
    check_motion(sweep, choice)


def test_maps_below_the_leakage_and_options_out_of_range():
    edges = np.asarray([0.0, 5.0])
    leaky = SweepOptions(speed=1.0, dose_rate=100.0, gap=0.0, transmission=0.5, park=-5.0)
    with pytest.raises(InputError, match="let 50 % through"):
        sliding_window(FluenceMap(np.asarray([[1.0]]), edges), leaky)
    with pytest.raises(InputError, match="out of range"):
        SweepOptions(speed=0.0, dose_rate=1.0, gap=0.0, transmission=0.0, park=0.0)
    with pytest.raises(InputError, match="two or more control points"):
        SweepOptions(speed=1.0, dose_rate=1.0, gap=0.0, transmission=0.0, park=0.0, control_points=1)
