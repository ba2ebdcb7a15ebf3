"""Leaf trajectories keep speed, gap, bounds and span of real machines, after rounding too."""

from __future__ import annotations

import time

import numpy as np
import pytest

from radplan.beams.control_points import ControlPoint, TreatmentField
from radplan.delivery.rounding import in_steps
from radplan.delivery.trajectories import LeafTrajectories, envelope, leaf_trajectories
from radplan.engines.aperture.variables import FieldLayout
from radplan.errors import InputError
from radplan.influence import Variables
from radplan.machines.limits import MachineLimits, library_limits

MACHINES = ("TrueBeam", "TrueBeam STx", "Versa HD")


def random_field(limits: MachineLimits, points: int, random: np.random.Generator) -> TreatmentField:
    mlc = limits.collimator()
    made = []
    for number in range(points):
        middle = random.uniform(-80.0, 80.0, mlc.pairs)
        half = random.choice([0.0, 1.0], mlc.pairs) * random.exponential(20.0, mlc.pairs)
        ends = np.stack([middle - half, middle + half], axis=1)
        made.append(ControlPoint(float(number), 2.0 * number, 0.0, 0.0, np.zeros(3), leaves=ends, direction="CW"))
    return TreatmentField("arc", 1, tuple(made), 1000.0, mlc.boundaries)


def limited(limits: MachineLimits, field: TreatmentField, seconds: np.ndarray) -> tuple[LeafTrajectories, np.ndarray]:
    layout = FieldLayout.of(field, 0)
    low, high = layout.bounds(limits, (-1000.0, 1000.0, -1000.0, 1000.0), ("leaves", "mu"))
    bank = np.asarray(limits.leaf_bounds)
    low[layout.leaf_slice] = np.tile(bank[:, 0], layout.leaves.size // 2)
    high[layout.leaf_slice] = np.tile(bank[:, 1], layout.leaves.size // 2)
    bounded = Variables(layout.stop, lower=low, upper=high, start=layout.start, scale=1.0)
    return leaf_trajectories(bounded, [layout], limits, [seconds]), np.array(layout.start)


def violations(limits: MachineLimits, tracks: LeafTrajectories, x: np.ndarray, seconds: np.ndarray) -> list[str]:
    """Return what rounded leaf ends break, each limit read from the machine itself."""
    track = tracks.tracks[0]
    ends = in_steps(track.leaves(x), limits.leaf_step)
    fastest = np.abs(np.diff(ends, axis=0)).max(axis=(1, 2))
    bounds = np.asarray(limits.leaf_bounds)
    wrong = {
        "speed": np.any(fastest > limits.leaf_speed * seconds + 1e-6),
        "gap": np.any(ends[:, :, 1] - ends[:, :, 0] < limits.dynamic_gap - 1e-6),
        "bounds": np.any(ends < bounds[:, 0] - 1e-6) or np.any(ends > bounds[:, 1] + 1e-6),
        "span": np.any(np.ptp(ends, axis=(0, 1)) > limits.bank_span + 1e-6),
    }
    return [name for name, broken in wrong.items() if broken]


@pytest.mark.parametrize("name", MACHINES)
def test_random_plans(name):
    """No violation after rounding in 1000 plans of each machine, and what is right already does not move."""
    limits, random = library_limits(name), np.random.default_rng(20260714)
    for _ in range(1000):
        points = int(random.integers(2, 12))
        seconds = random.uniform(0.02, 2.0, points - 1)
        tracks, start = limited(limits, random_field(limits, points, random), seconds)
        projected = tracks.project(start + random.normal(0.0, random.choice([0.1, 5.0, 60.0]), start.size))
        assert violations(limits, tracks, projected, seconds) == []
        np.testing.assert_array_equal(tracks.project(projected), projected)
        rounded = projected.copy()
        own = tracks.tracks[0]
        rounded[own.first : own.stop] = in_steps(projected[own.first : own.stop], limits.leaf_step)
        np.testing.assert_allclose(tracks.project(rounded), rounded, atol=1e-9)


def test_speed_of_the_projection():
    """120 leaves at 180 control points in at most 10 ms of processor time."""
    limits = library_limits("TrueBeam")
    tracks, start = limited(limits, random_field(limits, 180, np.random.default_rng(1)), np.full(179, 0.33))
    taken = []
    for _ in range(7):
        begin = time.process_time()
        tracks.project(start)
        taken.append(time.process_time() - begin)
    assert min(taken) <= 0.010


def test_the_envelope_is_the_nearest_in_the_largest_deviation():
    """Half of what neighbours lack is the least by which any trajectory must depart; the mean attains it."""
    random = np.random.default_rng(3)
    for _ in range(50):
        points = int(random.integers(2, 40))
        wished, travel = random.normal(0.0, 20.0, (points, 3)), random.uniform(0.0, 8.0, points - 1)
        way = np.concatenate([[0.0], np.cumsum(travel)])
        lacking = np.abs(wished[:, None] - wished[None]) - np.abs(way[:, None] - way[None])[..., None]
        found = envelope(wished, travel).values
        least = 0.5 * np.maximum(lacking, 0.0).max(axis=(0, 1))
        np.testing.assert_allclose(np.abs(found - wished).max(axis=0), least, atol=1e-9)
        assert np.all(np.abs(np.diff(found, axis=0)) <= travel[:, None] + 1e-9)


def test_leaves_that_may_not_pass_neighbours_are_refused():
    from dataclasses import replace

    limits = replace(library_limits("TrueBeam"), neighbour_gap=10.0)
    with pytest.raises(InputError, match="may not pass their neighbours"):
        limited(limits, random_field(limits, 3, np.random.default_rng(0)), np.ones(2))


def test_times_must_fit():
    limits = library_limits("TrueBeam")
    with pytest.raises(InputError, match="times must be 2 numbers >= 0 s, got shape"):
        limited(limits, random_field(limits, 3, np.random.default_rng(0)), np.ones(3))
