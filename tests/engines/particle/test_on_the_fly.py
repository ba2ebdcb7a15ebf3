"""Particle dose on the fly against the stored matrices, whose entries it calculates again, on every backend."""

from __future__ import annotations

import numpy as np
import pytest

from radplan import testing
from radplan.arrays import to_numpy
from radplan.beams import Beams, place_beams
from radplan.engines import ParticlePencilBeam, dose_influence
from radplan.errors import CalculationError
from radplan.kernels import spot_products, spots
from radplan.optim import Goal, Problem
from radplan.optim.objectives import SquaredDeviation
from radplan.quantities import QuantityResolver
from tests.particle_case import machine, patient

CASE = patient()
ENGINES = {
    "single": ParticlePencilBeam(biology="wedenberg", let_threshold=4.0),
    "double": ParticlePencilBeam(lateral="double", biology="mcnamara"),
    "elliptic": ParticlePencilBeam(lateral="elliptic", cutoff_rule="matrad"),
}


@pytest.fixture(scope="module")
def beams():
    return place_beams(CASE, machine(), gantry=[0.0, 70.0], couch=[0.0, 20.0], bixel_width=6.0)


@pytest.fixture(scope="module", params=ENGINES)
def engine(request):
    return ENGINES[request.param]


def models(beams, engine, device="numpy", dtype="float64"):
    return [
        dose_influence(CASE, beams, machine(), grid=4.0, engine=engine, stored=stored, device=place, dtype=dtype)
        for stored, place in ((True, "numpy"), (False, device))
    ]


def weights(count):
    x = np.random.default_rng(5).uniform(0.0, 2.0, count)
    x[::3] = 0.0
    return x


def test_all_images_equal_those_of_the_matrix(beams, engine):
    stored, fly = models(beams, engine)
    x = weights(beams.count)
    assert fly.images == stored.images
    ours, theirs = fly.forward(x), stored.forward(x)
    for image in theirs:
        assert np.max(np.abs(ours[image] - theirs[image])) < 1e-6 * np.max(theirs[image])
    alone = fly.forward(x, ["let_dose"])["let_dose"]
    np.testing.assert_array_equal(alone, ours["let_dose"])


def test_pullback_norms_and_restriction_equal_those_of_the_matrix(beams, engine):
    stored, fly = models(beams, engine)
    rng = np.random.default_rng(6)
    sent = {name: rng.normal(size=(1, fly.voxels.size)) for name in fly.images}
    x = weights(beams.count)
    there = stored.pullback(x, sent)
    np.testing.assert_allclose(fly.pullback(x, sent), there, rtol=0, atol=2e-6 * np.abs(there).max())
    for name in fly.images:
        ours, theirs = (model.operators[name][0].column_norms() for model in (fly, stored))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6 * theirs.max())
    some = fly.voxels[fly.voxels % 3 == 0]
    part, whole = fly.restrict(some).forward(x), fly.forward(x)
    for name in fly.images:
        np.testing.assert_array_equal(part[name][0], whole[name][0][fly.voxels % 3 == 0])


@pytest.mark.parametrize(("dtype", "bar"), [("float32", 1e-6), ("float64", 1e-12)])
def test_transpose_is_exact(beams, dtype, bar):
    _, fly = models(beams, ENGINES["single"], dtype=dtype)
    rng = np.random.default_rng(8)
    for (operator,) in fly.operators.values():
        testing.check_operator(operator)
        x, y = rng.random(operator.shape[1]).astype(dtype), rng.random(operator.shape[0]).astype(dtype)
        forward, back = (
            float(np.dot(a.astype(float), b)) for a, b in ((operator.apply(x), y), (operator.adjoint(y), x))
        )
        assert abs(forward - back) < bar * abs(forward)


@pytest.mark.parametrize(
    ("device", "dtype", "bar"),
    [
        ("torch:cpu", "float64", 1e-6),
        ("torch:cpu", "float32", 1e-4),
        ("array_api_strict", "float64", 1e-6),
        ("array_api_strict:device1", "float32", 1e-4),
    ],
)
def test_other_libraries_give_the_same(engine, device, dtype, bar):
    if device.startswith("torch"):
        pytest.importorskip("torch")
    beams = place_beams(CASE, machine(), gantry=[0.0, 70.0], bixel_width=9.0)
    stored, fly = models(beams, engine, device, dtype)
    x = weights(beams.count)
    put = fly.device.asarray(x, dtype)
    ours, theirs = fly.forward(put), stored.forward(x)
    for image in theirs:
        assert np.max(np.abs(to_numpy(ours[image]) - theirs[image])) < bar * np.max(theirs[image])
    sent = {name: np.asarray(values) for name, values in theirs.items()}
    back = fly.pullback(put, {name: fly.device.asarray(values, dtype) for name, values in sent.items()})
    there = stored.pullback(x, sent)
    assert np.max(np.abs(to_numpy(back) - there)) < bar * np.abs(there).max()
    norms = to_numpy(fly.operators["let_dose"][0].column_norms())
    np.testing.assert_allclose(norms, stored.operators["let_dose"][0].column_norms(), rtol=10 * bar)


def test_default_cutoff_against_nearly_none(beams):
    """What the cut-off leaves out and makes up for, in a plan: within 0.5 % of the maximum."""
    whole = dose_influence(
        CASE, beams, machine(), 4.0, engine=ParticlePencilBeam(lateral_cutoff=0.99999), stored=True, dtype="float64"
    )
    _, fly = models(beams, ParticlePencilBeam())
    x = np.ones(beams.count)
    reference = whole.forward(x)["physical_dose"]
    assert np.max(np.abs(fly.forward(x)["physical_dose"] - reference)) < 0.005 * reference.max()


def test_a_problem_takes_either(beams):
    engine = ParticlePencilBeam(biology="wedenberg", let=False)
    goals = [Goal("PTV", SquaredDeviation(60.0), quantity="rbe_x_dose")]
    x = weights(beams.count)
    values, gradients = [], []
    for model in models(beams, engine):
        value, gradient = Problem(model, goals, CASE, fractions=30).value_and_gradient(x)
        values.append(float(value))
        gradients.append(np.asarray(gradient))
    assert values[1] == pytest.approx(values[0], rel=1e-5)
    np.testing.assert_allclose(gradients[1], gradients[0], rtol=0, atol=1e-5 * np.abs(gradients[0]).max())


def test_images_are_calculated_in_one_pass(beams, monkeypatch):
    _, fly = models(beams, ENGINES["single"])
    calls = []
    for name in ("forward", "adjoint"):
        kernel = getattr(spot_products, name)
        monkeypatch.setattr(spot_products, name, lambda *a, _k=kernel, _n=name: (calls.append(_n), _k(*a))[1])
    x = weights(beams.count)
    QuantityResolver(fly).evaluate(x, ["rbe_x_dose", "let"]).pullback({"let": np.ones((1, fly.voxels.size))})
    assert calls.count("forward") == calls.count("adjoint") == len(beams)


def test_memory_does_not_grow_with_spots():
    few, many = (place_beams(CASE, machine(), gantry=0.0, bixel_width=width) for width in (6.0, 2.0))
    sizes, stored = [], []
    for beams in (few, many):
        matrix, fly = models(beams, ENGINES["single"])
        sizes.append(fly.operators["physical_dose"][0].family.nbytes)
        stored.append(len(matrix.images) * matrix.operators["physical_dose"][0].nnz)
    assert many.count > 5 * few.count
    assert stored[1] > 5 * stored[0]
    assert sizes[1] < 2.5 * sizes[0]


def test_beams_beside_the_voxels():
    beams = Beams.from_rays(
        [[[0.0, 0.0]]], gantry=0.0, isocenter=(0.0, 0.0, 0.0), sad=10000.0, bixel_width=5.0, machine="small",
        radiation="protons", energies=[[machine().energies[20]]],
    )  # fmt: skip
    corner = CASE.body_voxels(CASE.ct.grid)[:1]
    with pytest.raises(CalculationError, match="dose grid"):
        dose_influence(CASE, beams, machine(), grid=CASE.ct.grid, stored=False, voxels=corner)
    assert spots.SINGLE == 0
