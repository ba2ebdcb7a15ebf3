"""Leaves over bixels: shares in closed form, sweeps against many still leaves, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.beams.beam import Beams
from radplan.beams.control_points import ControlPoint, DeliveryPlan, TreatmentField
from radplan.delivery.bixel_apertures import bixel_apertures
from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.influence import Dij
from radplan.machines.limits import MachineLimits
from radplan.machines.mlc import MLC

EDGES = np.asarray([-5.0, 0.0, 5.0])
LEAVES = MLC("two rows", EDGES, 0.1, 0.0)
LIMITS = MachineLimits("two rows", "two rows", 25.0, 6.0, {"flat": 600.0}, (0.1, 20.0), (50.0, 50.0), 0.0)
CENTRES = np.asarray([(x, y) for y in (-2.5, 2.5) for x in (-5.0, 0.0, 5.0)])


def unit_model(points, centres=CENTRES, mlc=LEAVES, gantry=(0.0,), boundaries=EDGES):
    """Return a model whose dose is the weight of each bixel."""
    beams = Beams.from_rays(
        [centres] * len(gantry), gantry=gantry, isocenter=np.zeros(3), sad=1000.0, bixel_width=5.0, machine="none"
    )
    dij = Dij.from_matrices(
        {"physical_dose": np.eye(beams.count)}, Grid((1, 1, beams.count), (1, 1, 1), (0, 0, 0)), dtype="float64"
    )
    field = TreatmentField("field", 1, tuple(points), 1000.0, boundaries)
    return bixel_apertures(dij, DeliveryPlan("plan", (field,)), mlc, beams, LIMITS)


def at(meterset, leaves, gantry=0.0, **more):
    return ControlPoint(meterset, gantry, 0.0, 0.0, np.zeros(3), leaves=leaves, **more)


def dose(model):
    return model.forward(np.array(model.variables.start))["physical_dose"][0]


def test_shares_by_hand():
    """10 MU; row 1 open from -6.5 to 3.5 mm: 4/5, 5/5 and 1/5 of its bixels; row 2 closed; 10 % come through."""
    shape = [[-6.5, 3.5], [0.0, 0.0]]
    model = unit_model([at(0.0, shape), at(10.0, shape)])
    expected = 10.0 * (0.1 + 0.9 * np.asarray([0.8, 1.0, 0.2, 0.0, 0.0, 0.0]))
    np.testing.assert_allclose(dose(model), expected)


def test_a_sweep_is_the_mean_of_still_leaves():
    """Both ends move during the segment; 4000 still positions give the same within 1e-3 of the monitor units."""
    first, last = np.asarray([[-7.0, -6.0], [-7.0, 1.0]]), np.asarray([[2.0, 6.5], [-3.0, 7.5]])
    swept = dose(unit_model([at(0.0, first), at(10.0, last)]))
    low, high = CENTRES[:, 0] - 2.5, CENTRES[:, 0] + 2.5
    rows = (CENTRES[:, 1] > 0).astype(int)
    total = np.zeros(6)
    for t in (np.arange(4000) + 0.5) / 4000:
        ends = (1 - t) * first + t * last
        total += np.clip(np.minimum(high, ends[rows, 1]) - np.maximum(low, ends[rows, 0]), 0.0, None) / 5.0 / 4000
    np.testing.assert_allclose(swept, 10.0 * (0.1 + 0.9 * total), atol=1e-2)


def test_the_leaf_offset_opens_both_sides_and_jaws_close():
    mlc = MLC("two rows", EDGES, 0.0, 0.5)
    shape = [[-2.5, 2.5], [-2.5, 2.5]]
    jaws = {"jaws_x": [-10.0, 2.5], "jaws_y": [-5.0, 1.25]}
    model = unit_model([at(0.0, shape, **jaws), at(1.0, shape, **jaws)], mlc=mlc)
    np.testing.assert_allclose(dose(model), [0.1, 1.0, 0.0, 0.025, 0.25, 0.0], atol=1e-12)


def test_segments_add_up_on_their_beams():
    shapes = [[[-7.5, 7.5]] * 2, [[-2.5, 2.5]] * 2]
    points = [at(0.0, shapes[0]), at(2.0, shapes[0]), at(2.0, shapes[1]), at(5.0, shapes[1])]
    model = unit_model(points)
    np.testing.assert_allclose(dose(model), 2.0 + 3.0 * (0.1 + 0.9 * np.asarray([0.0, 1.0, 0.0] * 2)))
    assert model.variables.count == 2 * 2 * 2 + 2 * 4 + 2


def test_rows_that_straddle_leaves_are_refused():
    shape = [[-5.0, 5.0]] * 2
    with pytest.raises(InputError, match=r"3 bixels of the beam at gantry 0 lie across or beyond leaves"):
        unit_model([at(0.0, shape), at(1.0, shape)], centres=CENTRES[:3] + [0.0, 2.5])


def test_a_segment_without_a_beam_is_refused():
    shape = [[-5.0, 5.0]] * 2
    points = [at(0.0, shape, 8.0, direction="CW"), at(1.0, shape, 12.0)]
    assert dose(unit_model(points, gantry=(10.0,)))[0] > 0.0
    with pytest.raises(InputError, match="no beam of bixels stands at gantry 10, collimator 0"):
        unit_model(points, gantry=(8.0,))


def test_another_collimator_is_refused():
    shape = [[-5.0, 5.0]] * 2
    with pytest.raises(InputError, match="needs the leaves of MLC 'two rows'"):
        unit_model([at(0.0, shape), at(1.0, shape)], boundaries=[-10.0, 0.0, 10.0])


def test_a_bixel_of_several_whole_pairs_gets_the_mean_of_them():
    """10 mm bixels over two pairs of 5 mm: one open, one closed."""
    shape = [[-5.0, 5.0], [5.0, 5.0]]
    beams = Beams.from_rays(
        [[[0.0, 0.0]]], gantry=0.0, isocenter=np.zeros(3), sad=1000.0, bixel_width=10.0, machine="none"
    )
    dij = Dij.from_matrices({"physical_dose": np.eye(1)}, Grid((1, 1, 1), (1, 1, 1), (0, 0, 0)), dtype="float64")
    field = TreatmentField("field", 1, (at(0.0, shape), at(10.0, shape)), 1000.0, EDGES)
    assert dose(bixel_apertures(dij, DeliveryPlan("plan", (field,)), LEAVES, beams, LIMITS))[0] == pytest.approx(
        10 * 0.55
    )
