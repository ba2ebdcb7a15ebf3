"""The beam's eye view: transpose, analytic places at every gantry angle, means along rays, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from radplan.ai.bev import BevProjector
from radplan.arrays import as_device, to_numpy
from radplan.errors import InputError
from radplan.geometry.frames import beam_rotation, isocentre_plane, world_to_beam
from radplan.geometry.grid import Grid

GRID = Grid((12, 30, 32), (5.0, 5.0, 4.0), (-77.0, -70.0, -20.0))
EVERYWHERE = np.ones(GRID.shape, dtype=bool)


def projector(device="numpy", dtype="float32", **changed):
    settings = {"isocentre": (3.0, -2.0, 1.0), "gantry": [0.0, 40.0, 200.0], "pixels": (10, 14), "pitch": 9.0}
    return BevProjector(GRID, EVERYWHERE, device=device, dtype=dtype, **(settings | changed))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-12)])
@pytest.mark.parametrize("device", ["numpy", "torch:cpu", "array_api_strict"])
def test_the_transpose_is_exact(device, dtype, tolerance, rng):
    bev, place = projector(device, dtype, collimator=[0.0, 30.0, 5.0]), as_device(device)
    volume, maps = rng.random(GRID.shape), rng.random(bev.shape)
    forward = to_numpy(bev.apply(place.asarray(volume, dtype))).astype(np.float64)
    back = to_numpy(bev.adjoint(place.asarray(maps, dtype))).astype(np.float64)
    one, other = np.vdot(forward, maps), np.vdot(volume, back)
    assert abs(one - other) <= tolerance * np.linalg.norm(forward) * np.linalg.norm(maps)


@pytest.mark.parametrize("gantry", list(range(0, 360, 20)))
def test_a_point_dose_lands_at_its_analytic_place(gantry):
    bev = projector(dtype="float64", gantry=[float(gantry)], collimator=15.0, couch=10.0, pixels=(100, 100), pitch=2.0)
    volume = np.zeros(GRID.shape)
    index = (8, 20, 22)
    volume[index] = 1.0
    image = bev.apply(volume)[0]
    v, u = bev.centres()
    seen = np.asarray([(image.sum(axis=0) * u).sum(), (image.sum(axis=1) * v).sum()]) / image.sum()
    point = np.asarray(GRID.points([np.ravel_multi_index(index, GRID.shape)]))
    turned = world_to_beam(point, bev.isocentre, beam_rotation(gantry, 10.0, 15.0))
    x, y, _ = isocentre_plane(turned, 1000.0)
    # to a quarter of a pixel: pixels sample the voxel's tent of 10 mm
    np.testing.assert_allclose(seen, [x[0], y[0]], atol=0.5)


def test_a_pixel_is_the_mean_where_the_ray_is_inside():
    inside = np.zeros(GRID.shape, dtype=bool)
    inside[:, :15] = True
    ramp = np.broadcast_to(np.arange(30.0)[None, :, None], GRID.shape)
    bev = BevProjector(GRID, inside, (0.0, 0.0, 0.0), [0.0], pixels=(1, 1), pitch=1.0, dtype="float64")
    # along gantry 0 the ray runs through rows 0 to 14: their mean is 7; a sample more or less at an end makes 0.2
    assert bev.apply(np.array(ramp)).item() == pytest.approx(7.0, abs=0.2)
    far = BevProjector(GRID, inside, (0.0, 0.0, 0.0), [0.0], pixels=(1, 3), pitch=300.0, dtype="float64")
    assert far.apply(np.array(ramp))[0, 0, [0, 2]].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("device", ["numpy", "torch:cpu"])
def test_its_torch_function_has_the_transpose_as_gradient(device):
    small = Grid((3, 4, 5), (5.0, 5.0, 5.0), (-10.0, -7.5, -5.0))
    bev = BevProjector(
        small, np.ones(small.shape, bool), (0.0, 0.0, 0.0), [0.0, 70.0], pixels=(3, 3), device=device, dtype="float64"
    )
    volume = torch.rand(small.shape, dtype=torch.float64, generator=torch.manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(bev.as_torch(), (volume,))
    assert tuple(bev.as_torch()(volume).shape) == (2, 3, 3)


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="inside has shape"):
        BevProjector(GRID, EVERYWHERE[1:], (0.0, 0.0, 0.0), [0.0])
    with pytest.raises(InputError, match="at least one control point"):
        projector(gantry=[])
    with pytest.raises(InputError, match="2 angles for 3"):
        projector(couch=[0.0, 1.0])
    with pytest.raises(InputError, match="pitch"):
        projector(pitch=0.0)
    with pytest.raises(InputError, match="volume has shape"):
        projector().apply(np.zeros((2, 2, 2), np.float32))
    with pytest.raises(InputError, match="maps have shape"):
        projector().adjoint(np.zeros((2, 2, 2), np.float32))
    with pytest.raises(InputError, match="torch or NumPy"):
        projector("array_api_strict").as_torch()
