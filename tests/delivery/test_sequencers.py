"""Step and shoot: counts of matRad's sequencers, and what must hold for every map."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from radplan.delivery.sequencing import SEQUENCERS, Shapes, complexity, quantised, siochi, xia
from radplan.delivery.sequencing.siochi import underdosed_pairs
from radplan.errors import InputError

MAPS = arrays(np.int64, st.tuples(st.integers(1, 7), st.integers(1, 9)), elements=st.integers(0, 12)).filter(np.any)

# matRad 3.2.2 on its TG-119 plan of five beams and seven levels: shapes of each beam, and units of all shapes.
ORACLE = {
    "siochi": ((18, 15, 16, 16, 15), (18, 15, 16, 16, 15)),
    "xia": ((11,) * 5, (15,) * 5),
    "engel": ((11, 10, 10, 10, 10), (14,) * 5),
}


@pytest.fixture(scope="module")
def oracle(shared):
    path = shared("oracle/sequencing_oracle.mat")
    return scipy.io.loadmat(path, squeeze_me=True, struct_as_record=False)["out"]


@pytest.mark.parametrize("method", ORACLE)
@pytest.mark.parametrize("beam", range(5))
def test_no_more_shapes_and_units_than_matrad(oracle, method, beam):
    reference = getattr(oracle, method).beam[beam]
    fluence = np.asarray(reference.fluence, dtype=np.float64)
    levels, _ = quantised(fluence, 7)
    shapes = SEQUENCERS[method](levels)
    counts, units = ORACLE[method]
    assert len(shapes) <= counts[beam] == reference.numOfShapes
    assert shapes.units.sum() <= units[beam]
    np.testing.assert_array_equal(shapes.total(), fluence)  # matRad keeps its map in levels
    if method != "xia":  # what matRad's own shapes give; those of Xia do not give its map
        delivered = np.tensordot(np.atleast_1d(reference.shapesWeight), np.moveaxis(reference.shapes, -1, 0), axes=1)
        np.testing.assert_allclose(shapes.total() / 7.0, delivered / delivered.max(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", SEQUENCERS)
@settings(max_examples=150, deadline=None)
@given(levels=MAPS)
def test_shapes_sum_to_the_map_in_any_order(method, levels):
    shapes = SEQUENCERS[method](levels)
    np.testing.assert_array_equal(shapes.total(), levels)
    backwards = Shapes(shapes.units[::-1], shapes.first[::-1], shapes.last[::-1], shapes.columns)
    np.testing.assert_array_equal(backwards.total(), levels)
    edges = np.abs(np.diff(shapes.openings().astype(int), axis=2, prepend=0, append=0)).sum(axis=2)
    assert np.all(edges <= 2)  # every row is one run
    assert shapes.units.sum() >= complexity(levels)


@settings(max_examples=150, deadline=None)
@given(levels=MAPS)
def test_engel_needs_the_fewest_units(levels):
    assert SEQUENCERS["engel"](levels).units.sum() == complexity(levels)


@settings(max_examples=150, deadline=None)
@given(levels=MAPS)
def test_siochi_has_no_tongue_and_groove_underdose(levels):
    assert underdosed_pairs(siochi(levels)) == 0


def test_others_have_tongue_and_groove_underdose(oracle):
    levels, _ = quantised(np.asarray(oracle.engel.beam[0].fluence, dtype=np.float64), 7)
    for method in ("xia", "engel"):
        assert 140 <= underdosed_pairs(SEQUENCERS[method](levels)) <= 260


@pytest.mark.parametrize("method", SEQUENCERS)
def test_small_maps(method):
    shapes = SEQUENCERS[method](np.asarray([[0, 5, 0]]))
    assert shapes.total().tolist() == [[0, 5, 0]]
    with pytest.raises(InputError, match="zero everywhere"):
        SEQUENCERS[method](np.zeros((2, 2)))
    with pytest.raises(InputError, match="whole numbers"):
        SEQUENCERS[method]([[0.5]])
    with pytest.raises(InputError, match="whole numbers"):
        SEQUENCERS[method]([[-1, 1]])
    with pytest.raises(InputError, match="shape"):
        SEQUENCERS[method]([1, 2])


def test_sliding_variant_of_xia_is_exact_too():
    levels = np.asarray([[3, 0, 7, 1], [0, 2, 0, 5]])
    np.testing.assert_array_equal(xia(levels, run="first").total(), levels)
    with pytest.raises(InputError, match="'maximum' or 'first'"):
        xia(levels, run="last")


def test_levels_of_a_map():
    with pytest.raises(InputError, match="levels must be"):
        quantised(np.ones((1, 1)), 0)
    with pytest.raises(InputError, match="zero everywhere"):
        quantised(np.zeros((1, 1)), 5)
