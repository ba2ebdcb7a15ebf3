"""Lateral density scaling of photon kernels, against closed forms; what it is worth stands in docs/heterogeneity.md."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from radplan.beams import Beams
from radplan.beams.control_points import ControlPoint, TreatmentField
from radplan.engines import ApertureOptions, PhotonPencilBeam, aperture_model, dose_influence
from radplan.engines.photon.terms import bixel_table
from radplan.errors import InputError
from radplan.geometry import Grid, density_before
from radplan.machines import library_machine, read_radplan_machine, write_photon_machine
from radplan.patient import CT, HUTable, Patient, Structure, Structures
from radplan.patient.patient import DensityOverride

TABLE = HUTable("density in thousandths", (0.0, 4000.0), (0.0, 4.0))
AXIS = [[0.0, 0.0]]


def slab_patient(layers, spacing=5.0, across=41, along=40, contoured=False):
    """A block of layers in y, each (first row, relative density); the beam of gantry 0 enters at row 0.

    Where `contoured`, a structure LUNG is what is thinner than water.
    """
    grid = Grid((across, along, across), (spacing,) * 3, (-(across // 2) * spacing, 0.0, -(across // 2) * spacing))
    density = np.ones(along)
    for first, value in layers:
        density[first:] = value
    hu = np.broadcast_to(1000.0 * density[None, :, None], grid.shape)
    body = Structure.from_mask("BODY", grid, np.ones(grid.shape, bool), role="external")
    lung = [Structure.from_mask("LUNG", grid, hu < 999.0)] if contoured else []
    return Patient("slabs", CT(grid, hu), Structures([body, *lung]), hu_table=TABLE)


def axis_dose(patient, linac, scaled, stored=False, bixels=None, gantry=0.0):
    """Dose on the voxels of the beam's axis, isocentre 100 mm below the surface, of bixels of weight 1."""
    places = np.stack(np.meshgrid([-12.5, -7.5, -2.5, 2.5, 7.5, 12.5], [-2.5, 2.5]), axis=-1).reshape(-1, 2)
    beams = Beams.from_rays(
        [places if bixels is None else bixels], gantry=gantry, isocenter=(0.0, 97.5, 0.0), sad=linac.sad,
        bixel_width=5.0, machine=linac.name,
    )  # fmt: skip
    grid = patient.ct.grid
    rows = np.arange(grid.size).reshape(grid.shape)[grid.shape[0] // 2, :, grid.shape[2] // 2]
    engine = PhotonPencilBeam(density_scaling=scaled)
    dij = dose_influence(
        patient, beams, linac, grid=grid, engine=engine, stored=stored, dtype="float64", voxels=np.sort(rows)
    )
    return np.asarray(dij.forward(np.ones(beams.count))["physical_dose"])[0]


@pytest.fixture(scope="module")
def linac():
    return library_machine("generic_photon_6mv")


def test_mean_density_before_a_point_in_two_slabs():
    """Of water, then 0.25 from 50 mm on: the integral of an exponential over each part of the path."""
    grid = slab_patient([(10, 0.25)]).ct.grid
    density = np.where(np.arange(40) < 10, 1.0, 0.25)[None, :, None] * np.ones(grid.shape, np.float32)
    deep = np.asarray([-1.0, 20.0, 51.0, 75.0, 190.0])
    points = np.stack([0 * deep, deep - 2.5, 0 * deep], axis=1)
    found = density_before(density, grid, [0.0, -900.0, 0.0], points, [6.0, 60.0])
    for row, length in zip(found, (6.0, 60.0), strict=True):
        slab = np.maximum(deep - 50.0, 0.0)
        expected = 1.0 - 0.75 * np.expm1(-slab / length) / np.expm1(-deep / length)
        np.testing.assert_allclose(row, np.where(deep > 0, expected, 1.0), rtol=1e-6)


def test_rays_that_start_in_air_begin_at_the_surface():
    grid = Grid((1, 30, 1), (400.0, 10.0, 400.0), (0.0, 0.0, 0.0))
    density = np.where(np.arange(30) < 10, 0.0, 0.4)[None, :, None].astype(np.float32)
    found = density_before(density, grid, [0.0, -500.0, 0.0], [[0.0, 96.0, 0.0], [100.0, 250.0, 0.0]], [20.0])
    np.testing.assert_allclose(found, 0.4, rtol=1e-6)


def test_lengths_must_be_positive():
    grid = Grid((1, 1, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    with pytest.raises(InputError, match="> 0 mm"):
        density_before(np.ones((1, 1, 1), np.float32), grid, [0.0, -9.0, 0.0], [[0.0, 0.0, 0.0]], [0.0])


@pytest.mark.parametrize("stored", [True, False])
def test_water_is_not_changed(linac, stored):
    water = slab_patient([])
    np.testing.assert_allclose(
        axis_dose(water, linac, True, stored), axis_dose(water, linac, False, stored), rtol=2e-6
    )  # float32 matrices


def test_a_medium_of_one_density_is_water_with_all_lengths_scaled(linac):
    """At half density the kernel is that of water at half the depth and half the stretch (O'Connor's theorem)."""
    z = 2.5 + 5.0 * np.arange(40)
    stretch = (900.0 + z) / 1000.0
    weights = linac.kernel.weights(0.5 * z, 0.5 * stretch)
    np.testing.assert_allclose(
        linac.kernel.parted_weights(0.5 * z, 0.5 * stretch, 0.5 * stretch), weights, atol=1e-9 * np.abs(weights).max()
    )
    blurred = bixel_table(linac.kernel, linac.source_sigma, 5.0, 0.5, 5.0, (0.0, 0.0))
    middle = blurred[:, blurred.shape[1] // 2, blurred.shape[2] // 2]
    found = axis_dose(slab_patient([(0, 0.5)]), linac, True, stored=True, bixels=AXIS)
    np.testing.assert_allclose(found, middle @ weights / stretch**2, rtol=1e-4)


def test_dose_of_a_symmetric_phantom_is_symmetric(linac):
    """Fields mirrored in x give equal dose on the axis of slabs, and turning the collimator by half a turn nothing."""
    lung = slab_patient([(10, 0.25), (25, 1.0)])
    left, right = (axis_dose(lung, linac, True, bixels=[[side * 12.5, 0.0]]) for side in (-1.0, 1.0))
    np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-12)


def test_small_fields_lose_dose_in_lung_and_recover_behind_it(linac):
    """Default dose rises in the slab; the scaled one falls, and returns once the slab lies several lengths back."""
    lung = slab_patient([(10, 0.25), (20, 1.0)])
    scaled, plain = (axis_dose(lung, linac, on) for on in (True, False))
    change = scaled / plain - 1
    np.testing.assert_allclose(change[:10], 0.0, atol=1e-6)
    assert np.all(change[13:20] < -0.1)
    assert abs(change[-1]) < 0.02


def test_stored_and_on_the_fly_agree_in_lung(linac):
    lung = slab_patient([(10, 0.25), (20, 1.0)])
    stored, fly = (axis_dose(lung, linac, True, stored) for stored in (True, False))
    np.testing.assert_allclose(fly, stored, atol=0.005 * stored.max())


def test_bone_narrows_no_kernel(linac):
    bone = slab_patient([(6, 1.7), (12, 1.0)])
    scaled, plain = (axis_dose(bone, linac, on) for on in (True, False))
    np.testing.assert_allclose(scaled, plain, rtol=1e-12)


def test_contoured_lungs_widen_kernels_unless_it_is_refused(linac):
    layers, alone = [(10, 0.25), (20, 1.0)], replace(linac, kernel=replace(linac.kernel, scattered=None))
    lungs, unnamed = slab_patient(layers, contoured=True), slab_patient(layers)
    scaled, plain = (axis_dose(unnamed, linac, on) for on in (True, False))
    np.testing.assert_array_equal(axis_dose(lungs, linac, None), scaled)
    np.testing.assert_array_equal(axis_dose(lungs, linac, False), plain)
    np.testing.assert_array_equal(axis_dose(unnamed, linac, None), plain)
    np.testing.assert_array_equal(axis_dose(lungs, alone, None), plain)


def test_the_influence_says_whether_kernels_were_widened(linac):
    told = []
    for contoured in (True, False):
        patient = slab_patient([(10, 0.25)], contoured=contoured)
        beams = Beams.from_rays(
            [AXIS], gantry=0.0, isocenter=(0.0, 97.5, 0.0), sad=linac.sad, bixel_width=5.0, machine=linac.name
        )
        told.append(dose_influence(patient, beams, linac, grid=patient.ct.grid, voxels=[9000]).settings)
    assert told[0]["options"] == {"density_scaling": True}
    assert told[1]["options"] == {"density_scaling": False}


@pytest.mark.parametrize("engine", ["bixels", "apertures"])
def test_a_couch_before_the_patient_widens_nothing(linac, engine):
    """A table of density 0.12 outside the body: kernels in the water behind it are those of water."""
    water = slab_patient([], spacing=10.0, across=21, along=30)
    grid = water.ct.grid
    rows = np.arange(30)[None, :, None] * np.ones(grid.shape)
    body = Structure.from_mask("BODY", grid, rows >= 8, role="external")
    table = Structure.from_mask("Couch", grid, rows < 5, role="ignored")
    couched = replace(water, structures=Structures([body, table]), overrides=(DensityOverride(table, 0.12),))
    if engine == "bixels":
        scaled, plain = (axis_dose(couched, linac, on) for on in (True, False))
    else:
        scaled, plain = (open_field_dose(couched, linac, density_scaling=on)[0] for on in (True, False))
    assert plain[9] > 0
    np.testing.assert_allclose(scaled[9:], plain[9:], rtol=5e-4)


def open_field_dose(patient, linac, **options):
    """Dose on the axis of a field of 3 cm that jaws bound, and the model."""
    jaws = np.asarray([-15.0, 15.0])
    points = tuple(
        ControlPoint(meterset, 0.0, 0.0, 0.0, [0.0, 95.0, 0.0], jaws_x=jaws, jaws_y=jaws) for meterset in (0.0, 100.0)
    )
    one = TreatmentField("open", 1, points, 1000.0)
    grid = patient.ct.grid
    rows = np.sort(np.arange(grid.size).reshape(grid.shape)[10, :, 10])
    model = aperture_model(patient, [one], linac, grid=grid, options=ApertureOptions(**options), voxels=rows)
    return np.asarray(model.forward(model.variables.start)["physical_dose"])[0], model


def test_apertures_follow_contoured_lungs_and_the_option(linac):
    layers = [(10, 0.25), (20, 1.0)]
    lungs = slab_patient(layers, spacing=10.0, across=21, along=30, contoured=True)
    (scaled, on), (plain, off), (asked, _) = (
        open_field_dose(lungs, linac, density_scaling=choice) for choice in (None, False, True)
    )
    np.testing.assert_array_equal(scaled, asked)
    assert (on.density_scaling, off.density_scaling) == (True, False)
    change = scaled / plain - 1
    np.testing.assert_allclose(change[:10], 0.0, atol=1e-5)
    assert np.all(change[12:20] < -0.08)
    with pytest.raises(InputError, match="density_scaling must be True, False or None, got 1"):
        ApertureOptions(density_scaling=1)


def test_densities_read_from_a_fan_are_those_of_exact_rays(linac):
    """Beside exact rays 10 mm deep and deeper: dose of a small field within 1 %, but for the voxel at the interface."""
    lungs = slab_patient([(10, 0.25), (20, 1.0)], spacing=10.0, across=21, along=30, contoured=True)
    fan, exact = (open_field_dose(lungs, linac, depths=kind)[0] for kind in ("fan", "exact"))
    away = np.delete(np.arange(1, 30), [9, 19])
    np.testing.assert_allclose(fan[away], exact[away], rtol=0.01)
    np.testing.assert_allclose(fan[[10, 20]], exact[[10, 20]], rtol=0.05)


def test_a_kernel_that_knows_no_scatter_is_refused(linac):
    plain = replace(linac, name="plain", kernel=replace(linac.kernel, scattered=None))
    with pytest.raises(InputError, match=r"density_scaling needs .* 'plain'"):
        axis_dose(slab_patient([]), plain, True)
    with pytest.raises(InputError, match="scattered"):
        plain.kernel.parted_weights(np.asarray([1.0]), np.asarray([1.0]), np.asarray([1.0]))
    with pytest.raises(InputError, match="shape of table"):
        replace(linac.kernel, scattered=linac.kernel.scattered[:2])


@pytest.mark.parametrize("known", [True, False])
def test_the_scattered_part_survives_a_file(linac, tmp_path, known):
    kernel = linac.kernel if known else replace(linac.kernel, scattered=None)
    write_photon_machine(replace(linac, kernel=kernel), tmp_path / "machine.npz")
    found = read_radplan_machine(tmp_path / "machine.npz").kernel.scattered
    assert (found is None) is not known
    if known:
        np.testing.assert_array_equal(found, kernel.scattered)
