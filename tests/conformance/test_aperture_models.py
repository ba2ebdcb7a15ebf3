"""Bixel apertures and leaf trajectories give the same on every backend, with the pullback of their forward."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from radplan import testing
from radplan.arrays import as_device, namespace, to_numpy
from radplan.beams.beam import Beams
from radplan.beams.control_points import ControlPoint, DeliveryPlan, TreatmentField
from radplan.delivery.bixel_apertures import BixelApertures, bixel_apertures
from radplan.delivery.followed import FollowedApertures
from radplan.delivery.trajectories import LeafTrajectories, leaf_trajectories
from radplan.geometry.grid import Grid
from radplan.influence import Dij
from radplan.machines.limits import MachineLimits, library_limits
from radplan.machines.mlc import MLC

EDGES = np.asarray([-7.5, -2.5, 2.5, 7.5])
LEAVES = MLC("three rows", EDGES, 0.02, 0.3)
LIMITS = MachineLimits("three rows", "three rows", 25.0, 6.0, {"flat": 600.0}, (0.1, 20.0), (50.0, 50.0), 0.5)
CENTRES = np.asarray([(x, y) for x in (-7.5, -2.5, 2.5, 7.5) for y in (-5.0, 0.0, 5.0)])
ANGLES, VOXELS = (10.0, 14.0, 18.0), 9


def arc_model(device: str, dtype: str) -> BixelApertures:
    """Return an arc of three segments over three beams of 4 x 3 bixels, with one pair that is closed."""
    beams = Beams.from_rays(
        [CENTRES] * len(ANGLES), gantry=ANGLES, isocenter=np.zeros(3), sad=1000.0, bixel_width=5.0, machine="none"
    )
    random = np.random.default_rng(5)
    points = []
    for number in range(len(ANGLES) + 1):
        ends = np.sort(random.uniform(-9.0, 9.0, (3, 2)), axis=1)
        ends[1] = 1.3, 1.8  # at its gap
        points.append(
            ControlPoint(
                12.0 * number,
                8.0 + 4.0 * number,
                0.0,
                0.0,
                np.zeros(3),
                leaves=ends,
                direction="CW",
                jaws_x=[-9.0, 9.0],
                jaws_y=[-6.0, 7.5],
            )
        )
    field = TreatmentField("arc", 1, tuple(points), 1000.0, EDGES)
    dij = Dij.from_matrices(
        {"physical_dose": random.uniform(0.0, 0.02, (VOXELS, beams.count))},
        Grid((1, 3, 3), (5.0, 5.0, 5.0), (0.0, 0.0, 0.0)),
        device=device,
        dtype=dtype,
    )
    return bixel_apertures(dij, DeliveryPlan("arc", (field,)), LEAVES, beams, LIMITS)


def followed(model: BixelApertures, seconds: float = 0.25, span: float = 12.0) -> FollowedApertures:
    limits = replace(library_limits("TrueBeam"), bank_span=span)
    times = [np.full(len(ANGLES), seconds)]
    return FollowedApertures(model, leaf_trajectories(model.variables, model.layouts, limits, times))


def test_bixel_apertures(device):
    model = arc_model(device, "float64")
    start = np.array(model.variables.start)
    testing.check_model(model, start + np.random.default_rng(2).uniform(-0.4, 0.4, start.size))


def test_apertures_through_their_trajectories(device):
    model = followed(arc_model(device, "float64"))
    start = np.array(model.variables.start)
    testing.check_model(model, start + np.random.default_rng(2).uniform(0.1, 0.4, start.size))


def test_a_closed_pair_has_a_slope(device):
    """Opening the pair that stands at its gap changes the dose at once, in both parametrisations."""
    bare = arc_model(device, "float64")
    for model in (bare, followed(bare, 10.0, np.inf)):
        place, start = model.device, np.array(model.variables.start)
        ones = place.asarray(np.ones((1, VOXELS)), "float64")
        gradient = to_numpy(model.pullback(place.asarray(start, "float64"), {"physical_dose": ones}))
        pair = bare.layouts[0].leaf_slice.start + 2
        assert abs(gradient[pair + 1]) > 0.01 * np.abs(gradient[bare.layouts[0].leaf_slice]).max()


def test_backends_agree(device):
    """Dose and gradient at given leaves, and projected leaves, within 1e-5 of the largest: those of NumPy."""
    values = []
    for name in ("numpy", device):
        model = followed(arc_model(name, "float32"))
        at = as_device(name).asarray(np.array(model.variables.start) + 0.3, "float64")
        ones = as_device(name).asarray(np.ones((1, VOXELS)), "float32")
        values.append(
            [
                to_numpy(model.forward(at)["physical_dose"]),
                to_numpy(model.pullback(at, {"physical_dose": ones})),
                to_numpy(model.followed(at)),
            ]
        )
    for ours, theirs in zip(*values, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(ours).max())


def test_trajectories_pull_back_what_they_project(device):
    model = followed(arc_model(device, "float64"), 0.1, 9.0)
    limits: LeafTrajectories = model.trajectories
    place = as_device(device)
    weights = place.asarray(np.random.default_rng(3).normal(size=limits.count), "float64")

    def value_and_gradient(x):
        return namespace(x).sum(limits.project(x) * weights), limits.pullback(x, weights)

    inside = np.array(limits.start) * 0.7
    for seed in range(5):
        at = inside + np.random.default_rng(seed).uniform(-1.0, 1.0, inside.size)
        jaws = model.model.layouts[0].jaw_slice
        at[jaws] = np.array(limits.start)[jaws]
        testing.check_gradient(value_and_gradient, place.asarray(at, "float64"), tolerance=1e-5)
