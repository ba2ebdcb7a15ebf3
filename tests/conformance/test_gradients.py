"""Gradients by the variables of every objective of every quantity on every backend, against finite differences."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from radplan.arrays import as_device, namespace, scalar, to_numpy
from radplan.engines.particle.tables import LET_DETAILS
from radplan.errors import InputError
from radplan.optim.objectives import OBJECTIVES
from radplan.quantities import QUANTITIES, QuantityResolver
from radplan.quantities.base import voxel_fields

POINT = np.asarray([0.9, 0.4, 0.6, 1.1, 0.7])
STEP = 1e-4
IMAGES = {
    "all images": ("physical_dose", "let_dose", "alpha_dose", "sqrt_beta_dose", "dirty_dose", *LET_DETAILS),
    "dose alone": ("physical_dose",),
}


def with_options(name):
    """Return the examples of a quantity without their voxel parameters: the model has its own."""
    cls = QUANTITIES.get(name)
    empty = dict.fromkeys(voxel_fields(cls))
    return list(dict.fromkeys(replace(example, **empty) for example in cls.examples()))


def cost(objective, values):
    """The sum of an objective over the scenarios, each voxel with the same weight."""
    share = namespace(values).full_like(values[0, :], 1.0 / values.shape[1])
    return sum(scalar(objective.value(values[row, :], share)) for row in range(values.shape[0]))


def cost_gradient(objective, evaluation, quantity):
    """The gradient of `cost` by the variables: what a problem does for one goal."""
    values = evaluation[quantity]
    xp = namespace(values)
    share = xp.full_like(values[0, :], 1.0 / values.shape[1])
    slopes = [objective.gradient(values[row, :], share) for row in range(values.shape[0])]
    return evaluation.pullback({quantity: xp.stack(slopes)})


@pytest.fixture(scope="module")
def expected(synthetic_model):
    """Return a function that gives finite differences on NumPy, calculated once for all backends."""

    @cache
    def shifted(images, quantity):
        resolver = QuantityResolver(synthetic_model(images=images))
        shifts = [sign * step * axis for axis in np.eye(POINT.size) for step in (STEP, STEP / 2) for sign in (1, -1)]
        return [resolver.get(quantity)(POINT + shift) for shift in shifts]

    @cache
    def differences(images, quantity, objective_name, number):
        objective = OBJECTIVES.get(objective_name).examples()[number]
        costs = np.reshape([cost(objective, values) for values in shifted(images, quantity)], (-1, 2, 2))
        slopes = (costs[:, :, 0] - costs[:, :, 1]) / (2.0 * np.asarray([STEP, STEP / 2]))
        return (4.0 * slopes[:, 1] - slopes[:, 0]) / 3.0

    return differences


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.parametrize("name", QUANTITIES.names())
def test_every_objective_of_a_quantity(name, kind, device, synthetic_model, expected):
    images = IMAGES[kind]
    resolver = QuantityResolver(synthetic_model(device, images=images))
    try:
        resolver.get(name)
    except InputError as error:
        missing = any(image in str(error) for image in ("let_dose", "dirty_dose", *LET_DETAILS))
        assert missing, "with the dose alone, only LET and what is made of it are out of reach"
        assert kind == "dose alone"
        return
    x = as_device(device).asarray(POINT, "float64")
    if name == "rbe" and kind == "dose alone":
        # The RBE of such a model is the same everywhere, whatever the dose: nothing has a slope.
        gradient = cost_gradient(OBJECTIVES.get("squared_deviation")(0.0), resolver.evaluate(x, [name]), name)
        assert np.abs(to_numpy(gradient)).max() < 1e-12
        return
    steered = 0
    for quantity in with_options(name):
        evaluation = resolver.evaluate(x, [quantity])
        for objective_name in OBJECTIVES.names():
            for number, objective in enumerate(OBJECTIVES.get(objective_name).examples()):
                reference = expected(images, quantity, objective_name, number)
                found = to_numpy(cost_gradient(objective, evaluation, quantity))
                size = max(np.linalg.norm(reference), 1e-6)
                error = np.linalg.norm(found - reference) / size
                assert error < 1e-6, f"{objective} of {quantity}: {found} instead of {reference}, off by {error:.2g}"
                steered += bool(reference.any())
    assert steered >= 8, f"the values of {name} are where few objectives have a slope: the check says little"
