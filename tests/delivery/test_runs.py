"""The rule-based sequencer: openings of known shapes, arcs that linacs can deliver, time, and what is refused."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from radplan.delivery.check import check_delivery
from radplan.delivery.sequencing import arc_of_fluence, fluence_runs
from radplan.errors import InputError
from radplan.machines import library_limits, library_machine

LINAC = library_machine("generic_photon_6mv")
EDGES = 2.5 * np.arange(41) - 50.0
LINACS = ("TrueBeam", "TrueBeam STx", "Versa HD")

MAPS = arrays(
    np.float64,
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 8)),
    elements=st.sampled_from((0.0, 1, 4)),
)


def wave(points, pairs, turns=1):
    """Maps (points, pairs, 40) of a spot that wanders to and fro, rough as a network gives them."""
    rng = np.random.default_rng(5)
    row = np.arange(pairs)[:, None] - 0.5 * (pairs - 1)
    centre = 25.0 * np.sin(np.linspace(0.0, 2.0 * turns * np.pi, points))[:, None, None]
    shape = 3.0 * np.exp(-(((0.5 * (EDGES[:-1] + EDGES[1:]) - centre) / 15.0) ** 2) - (row / 6.0) ** 2)
    rough = shape * (1.0 + 0.3 * rng.random(shape.shape))
    return np.where(rough > 0.05, rough, 0.0)


def test_openings_of_rectangles_are_found():
    rng = np.random.default_rng(1)
    first = rng.integers(0, 20, (30, 10))
    last = first + rng.integers(2, 20, (30, 10))
    column = np.arange(40)
    mu = rng.uniform(1.0, 5.0, 30)
    maps = mu[:, None, None] * ((first[..., None] <= column) & (column < last[..., None]))
    ends, found = fluence_runs(maps, EDGES)
    np.testing.assert_allclose(found, mu)
    np.testing.assert_allclose(ends, np.stack([EDGES[first], EDGES[last]], axis=2))


def test_the_run_with_the_most_fluence_stays_and_its_ends_lie_within_cells():
    row = [[[1.0, 1.0, 0.0, 4.0, 8.0, 8.0, 4.0, 0.0, 3.0, 3.0]]]
    ends, mu = fluence_runs(row, np.arange(11.0), threshold=0.05)
    assert mu[0] == 6.0
    np.testing.assert_allclose(ends[0, 0], [4.0 - 4.0 / 6.0, 6.0 + 4.0 / 6.0])
    alone, _ = fluence_runs([[[0.0, 2.0, 0.0]]], np.arange(4.0))
    np.testing.assert_allclose(alone[0, 0], [1.0, 2.0])
    nothing, none = fluence_runs(np.zeros((1, 2, 3)), np.arange(4.0))
    assert np.all(np.isnan(nothing))
    assert none[0] == 0.0


@settings(max_examples=200, deadline=None)
@given(maps=MAPS)
def test_openings_hold_fluence(maps):
    edges = np.arange(maps.shape[2] + 1.0)
    ends, mu = fluence_runs(maps, edges, threshold=0.1)
    some = np.isfinite(ends[..., 0])
    np.testing.assert_array_equal(some, maps.any(axis=2) & (maps.max(axis=2) > 0.1 * maps.max(axis=(1, 2))[:, None]))
    assert np.all(ends[some][:, 1] >= ends[some][:, 0])
    assert np.all((ends[some] >= 0.0) & (ends[some] <= edges[-1]))
    assert np.all((mu > 0) == maps.any(axis=(1, 2)))


@pytest.mark.parametrize("name", LINACS)
@pytest.mark.parametrize("direction", [1, -1])
def test_arcs_can_be_delivered(name, direction):
    limits = library_limits(name)
    mlc = limits.collimator()
    maps = wave(90, mlc.pairs)
    maps[40:43] = 0.0  # a network may give nothing
    angles = (181.0 + np.linspace(0.0, 358.0, 90))[::direction] % 360.0
    plan = arc_of_fluence(maps, EDGES, angles, (0.0, 0.0, 0.0), LINAC, mlc, fractions=20, collimator=10.0)
    report = check_delivery(plan, name)
    assert [str(violation) for violation in report] == []
    assert plan.fields[0].technique == "arc"
    # Monitor units are those of the maps, but for the least per degree where there are none.
    _, mu = fluence_runs(maps, EDGES)
    assert plan.mu == pytest.approx(mu.sum(), rel=0.02)


def test_slow_gantries_let_leaves_follow():
    limits = library_limits("TrueBeam")
    mlc = limits.collimator()
    maps = wave(90, mlc.pairs, turns=12)
    angles = (181.0 + np.linspace(0.0, 358.0, 90)) % 360.0
    ends, _ = fluence_runs(maps, EDGES)
    away = []
    for speed in (0.5, 6.0):
        plan = arc_of_fluence(maps, EDGES, angles, (0, 0, 0), LINAC, mlc, gantry_speed=speed)
        leaves = np.stack([point.leaves for point in plan.fields[0].points])
        wanted = ends + mlc.leaf_offset * np.asarray([1.0, -1.0])
        away.append(np.nanmean(np.abs(leaves - wanted)))
    assert away[0] < 0.5 * away[1]


def test_180_control_points_take_a_tenth_of_a_second():
    maps = wave(180, 60)
    mlc = library_limits("TrueBeam").collimator()
    angles = (181.0 + np.linspace(0.0, 358.0, 180)) % 360.0
    arc_of_fluence(maps, EDGES, angles, (0, 0, 0), LINAC, mlc)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        fluence_runs(maps, EDGES)
        middle = time.process_time()
        arc_of_fluence(maps, EDGES, angles, (0, 0, 0), LINAC, mlc)
        seconds.append((middle - start, time.process_time() - middle))
    rule, arc = np.min(seconds, axis=0)
    assert rule <= 0.1
    assert arc <= 1.0


def test_what_is_refused():
    mlc = library_limits("TrueBeam").collimator()
    maps = wave(4, 60)
    for arguments, message in (
        ({"gantry": [0.0, 10.0, 5.0, 20.0]}, "turn one way"),
        ({"gantry": [0.0, 10.0, 20.0]}, "does not fit 3 angles"),
        ({"fluence": wave(4, 80)}, "60 leaf pairs"),
        ({"fluence": np.zeros((4, 60, 40))}, "nothing to sequence"),
        ({"edges": 8.0 * np.arange(41) - 160.0}, "mm apart.*turn the collimator"),
    ):
        given = {"fluence": maps, "edges": EDGES, "gantry": [0.0, 10.0, 20.0, 30.0], **arguments}
        if "edges" in arguments:
            given["fluence"] = np.ones((4, 60, 40)) * (
                (np.arange(40) // 20)[None, None] == (np.arange(60) % 2)[None, :, None]
            )
        with pytest.raises(InputError, match=message):
            arc_of_fluence(isocenter=(0.0, 0.0, 0.0), machine=LINAC, mlc=mlc, **given)
    for values, edges, threshold, message in (
        (np.ones((1, 2)), np.arange(3.0), 0.1, "do not fit"),
        (-np.ones((1, 1, 2)), np.arange(3.0), 0.1, ">= 0"),
        (np.full((1, 1, 2), np.nan), np.arange(3.0), 0.1, "finite"),
        (np.ones((1, 1, 2)), np.arange(3.0), 1.0, "threshold must lie"),
    ):
        with pytest.raises(InputError, match=message):
            fluence_runs(values, edges, threshold)
