"""Couch and bolus outside the body: depths and doses against what slabs of water must give.

A parallel slab lengthens every ray by density x thickness x obliquity. So a couch shifts depths by a closed form,
couches of equal density x thickness give the same dose, and bolus of water is a thicker patient.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from radplan.beams import Beams
from radplan.engines import dose_influence
from radplan.geometry import radiological_depth
from radplan.io.plan_file.reading import plan_spec
from radplan.machines import library_machine
from radplan.patient import Structure
from radplan.patient.phantoms import phantom
from radplan.workflows.setup import prepare_patient

BOX = phantom("box")  # water from -76.5 to 76.5 mm in air to +-91.5 mm
GRID = BOX.ct.grid
LINAC = library_machine("generic_photon_6mv")
SOURCE = np.asarray([0.0, 1000.0, 0.0])  # gantry 180, from below


def slab(name: str, low: float, high: float) -> Structure:
    """Return a slab between two heights y [mm], as wide as the images."""
    y = GRID.axes[1]
    inside = np.broadcast_to(((y > low) & (y < high))[None, :, None], GRID.shape)
    return Structure.from_mask(name, GRID, inside, role="ignored")


def from_below(patient, voxels="body", stored=True):
    x, z = np.meshgrid(np.arange(-47.5, 50.0, 5.0), np.arange(-47.5, 50.0, 5.0))
    field = np.stack([x.ravel(), z.ravel()], axis=1)
    beams = Beams.from_rays(
        [field], gantry=180.0, isocenter=(0.0, 0.0, 0.0), sad=1000.0, bixel_width=5.0, machine=LINAC.name
    )
    return dose_influence(patient, beams, LINAC, grid=6.0, voxels=voxels, stored=stored, dtype="float64")


def open_field(patient, voxels="body", stored=True):
    dij = from_below(patient, voxels, stored)
    return dij.forward(np.full(dij.variables.count, 100.0))["physical_dose"][0], dij


def test_depths_behind_a_couch_grow_by_its_water_equivalent():
    couch = slab("Couch", 82.5, 91.5)
    points = GRID.points(BOX.structures["BODY"].voxels[::37])
    bare, supported = (
        radiological_depth(patient.density(), GRID, SOURCE, points) for patient in (BOX, BOX.with_density(couch, 0.4))
    )
    obliquity = np.linalg.norm(points - SOURCE, axis=1) / (SOURCE[1] - points[:, 1])
    np.testing.assert_allclose(supported - bare, np.float32(0.4) * 9.0 * obliquity, rtol=0, atol=1e-6)


@pytest.mark.parametrize("stored", [True, False])
def test_a_couch_takes_away_what_its_water_equivalent_does(stored):
    thick, thin = BOX.with_density(slab("Couch", 82.5, 91.5), 0.4), BOX.with_density(slab("Couch", 85.5, 88.5), 1.2)
    rows = BOX.body_voxels(GRID.with_spacing(6.0))
    (bare, dij), (supported, _), (same, _) = (open_field(p, rows, stored) for p in (BOX, thick, thin))
    np.testing.assert_allclose(supported, same, rtol=0, atol=1e-6 * bare.max())
    x, y, z = dij.grid.points(dij.voxels).T
    axis = (np.abs(x) < 6) & (np.abs(z) < 6) & (y < 50.0) & (y > -70.0)
    # On the axis beyond the maximum: the dose at a depth 3.6 mm greater, after the inverse square is taken out.
    depth, reduced = 76.5 - y[axis], bare[axis] * (1000.0 - y[axis]) ** 2
    order = np.argsort(depth)
    level = np.unique(np.round(depth[order], 6))
    curve = np.asarray([np.log(reduced[np.isclose(depth, at)].mean()) for at in level])
    fall = -np.polyder(np.polyfit(level, curve, 3))
    expected = np.exp(-3.6 * np.polyval(fall, depth + 1.8))
    np.testing.assert_allclose(supported[axis] / bare[axis], expected, rtol=1e-3)
    assert 0.975 < expected.mean() < 0.99  # 3.6 mm of water at 6 MV


def test_bolus_of_water_is_a_thicker_patient():
    bolus = slab("Bolus", 76.5, 91.5)
    whole = replace(BOX.structures["BODY"], voxels=np.union1d(BOX.structures["BODY"].voxels, bolus.voxels))
    thicker = replace(BOX, structures=[whole], goals=()).with_density("BODY", 1.0)
    dressed = BOX.with_density(bolus, 1.0, dosed=True)
    rows = dressed.body_voxels(GRID.with_spacing(6.0))
    np.testing.assert_allclose(open_field(dressed, rows)[0], open_field(thicker, rows)[0], rtol=0, atol=1e-9)


def test_bolus_gets_dose_and_a_couch_gets_none():
    bolus, coarse = slab("Bolus", 76.5, 91.5), GRID.with_spacing(6.0)
    mine = BOX.with_structure("Bolus", bolus).structure_weights("Bolus", coarse)[0]
    dressed, supported = BOX.with_density(bolus, 1.0, dosed=True), BOX.with_density(bolus, 1.0)
    body = BOX.body_voxels(coarse)
    assert np.array_equal(dressed.body_voxels(coarse), np.union1d(body, mine))
    assert np.array_equal(supported.body_voxels(coarse), body)
    assert np.array_equal(dressed.dosed_mask(), BOX.external.mask() | bolus.mask())
    assert np.array_equal(supported.dosed_mask(), BOX.external.mask())
    dose, dij = open_field(dressed)
    x, y, z = dij.grid.points(dij.voxels).T
    inside = np.isin(dij.voxels, mine) & (np.abs(x) < 30) & (np.abs(z) < 30) & (y < 91.5)
    assert inside.any()
    assert dose[inside].min() > 0.2 * dose.max()
    # What bolus is for: the skin lies behind the build-up.
    skin = (np.abs(x) < 30) & (np.abs(z) < 30) & (y > 70.0) & (y < 76.5)
    bare, plain = open_field(BOX, dij.voxels)
    assert bare[skin].max() < 0.95 * dose[skin].min()
    assert plain.voxels.size == dij.voxels.size


def test_a_plan_file_gives_densities_to_structures_and_expressions():
    spec = plan_spec(
        {
            "densities": [
                {"structure": "margin(BODY, P 9 mm) - BODY", "density": 1.0, "dosed": True},
                {"structure": "margin(BODY, A 6 mm) - BODY", "hu": 0.0},
            ]
        }
    )
    made = prepare_patient(spec, BOX)
    assert [override.dosed for override in made.overrides] == [True, False]
    y = GRID.axes[1]
    middle = made.density()[30, :, 30]
    np.testing.assert_allclose(middle, (y > -82.5) & (y < 85.5), atol=1e-6)
    reached = y[np.unravel_index(made.body_voxels(GRID), GRID.shape)[1]]
    assert (reached.min(), reached.max()) == (-78.0, 84.0)
