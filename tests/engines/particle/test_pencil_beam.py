"""The particle engine against its formulas, written out entry by entry, and its promises about images and options."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.beams import Beams, place_beams
from radplan.beams.range_shifter import RangeShifter
from radplan.biology.rbe import ConstantRBE, Wedenberg
from radplan.engines import ENGINES, ParticlePencilBeam, PhotonPencilBeam, dose_influence
from radplan.engines.particle.cutoff import squared_cutoff
from radplan.engines.particle.tables import LET_DETAILS
from radplan.errors import InputError
from radplan.geometry.frames import world_to_beam
from radplan.influence import Scenarios
from radplan.machines import library_machine
from radplan.quantities import QuantityResolver
from tests.particle_case import machine, patient

CASE = patient()
ENERGY = 80.6
NAMED = ("let_track", "let_track_protons", "let_all")


def spot_beams(gantry=0.0, energies=(78.6, 80.6), place=(2.0, -1.0), particles=None, **options):
    places = [list(place)] * len(energies)
    chosen = (particles or machine()).energies
    nearest = [float(chosen[np.argmin(np.abs(chosen - energy))]) for energy in energies]
    return Beams.from_rays(
        [places], gantry=gantry, isocenter=(0.0, 0.0, 0.0), sad=10000.0, bixel_width=5.0, machine="small",
        radiation="protons", energies=[nearest], **options,
    )  # fmt: skip


def gauss(across, a, b):
    return np.exp(-0.5 * (across[:, 0] ** 2 / a + across[:, 1] ** 2 / b)) / (2 * np.pi * np.sqrt(a * b))


def written_out(beams, image, lateral="single", share=0.995, shifter=None, model=None):
    """One image of every spot at the voxels of the grid, by the formulas of the engine's docstring."""
    beam, grid, particles = beams[0], CASE.ct.grid, machine()
    points = grid.points(CASE.body_voxels(grid))
    local = world_to_beam(points, beam.isocenter, beam.rotation)
    depth = np.clip(points[:, 1] + 54.0, 0.0, None) * np.sqrt(1 + (points[:, 0] / 1e4) ** 2 + (points[:, 2] / 1e4) ** 2)
    inside = CASE.external.mask().any(axis=1)
    z, _, x = np.unravel_index(CASE.body_voxels(grid), grid.shape)
    depth = np.where(inside[z, x], np.minimum(depth, 111.0), 0.0)
    seen = np.column_stack([local[:, :2], 1e4 - local[:, 2]])
    columns = []
    for place, energy in zip(beam.bixels, beam.energies, strict=True):
        layer = particles.entry(particles.energy_index(energy))
        ray = np.asarray([*place, 1e4]) / np.sqrt(1e8 + place @ place)
        across = seen - np.outer(seen @ ray, ray)
        surface = (1e4 - 54.0) / ray[2]
        air = 0.0011 * (surface + 500.0 - 1e4)
        initial = layer.focus.sigma_at(surface) ** 2
        if shifter is not None:
            air += shifter.thickness
            initial += float(shifter.variance(np.asarray(surface - 1e4 + 300.0), layer.range80))
        at = depth + air
        read = {n: np.interp(at, layer.depth, vars(layer)[n]) for n in ("dose", "let", "sigma", "sigma1", "sigma2")}
        read |= {n: np.interp(at, layer.depth, vars(layer)[n]) for n in ("weight", "sigma_x", "sigma_y")}
        r2 = np.sum(across**2, axis=1)
        s = {n: read[n] ** 2 + initial for n in ("sigma", "sigma1", "sigma2", "sigma_x", "sigma_y")}
        profile = {
            "single": gauss(across, s["sigma"], s["sigma"]),
            "double": (1 - read["weight"]) * gauss(across, s["sigma1"], s["sigma1"])
            + read["weight"] * gauss(across, s["sigma2"], s["sigma2"]),
            "elliptic": gauss(across, s["sigma_x"], s["sigma_y"]),
        }[lateral]
        names = {"single": ["sigma"], "double": ["sigma1", "sigma2", "weight"], "elliptic": ["sigma_x", "sigma_y"]}
        reach = squared_cutoff(1 - share, lateral, [vars(layer)[n] for n in names[lateral]], initial)
        kept = (r2 <= np.interp(at, layer.depth, reach)) & (at <= layer.depth[-1]) & (depth > 0)
        dose = np.where(kept, 1.6021766208e-2 / share * read["dose"] * profile, 0.0)
        let = read["let"]
        alpha_beta = {"alpha_dose": 0.1 + 0.434 * 0.05 * let, "sqrt_beta_dose": np.full_like(let, 0.05**0.5)}
        factor = {"physical_dose": 1.0, "let_dose": let, "dirty_dose": let > 4.0} | alpha_beta
        columns.append(dose * factor[image])
    return np.stack(columns, axis=1)


def compare(dij, beams, image, **options):
    ours = dij.operators[image][0].to_scipy().toarray()
    expected = written_out(beams, image, **options)
    assert expected.max() > 0
    same = (ours > 0) == (expected > 0)
    assert np.mean(~same) < 1e-3, "rounding may decide about an entry at the cut-off"
    np.testing.assert_allclose(ours[same], expected[same], rtol=2e-4, atol=1e-6 * expected.max())


@pytest.mark.parametrize("lateral", ["single", "double", "elliptic"])
def test_every_entry_of_every_image(lateral):
    beams = spot_beams()
    engine = ParticlePencilBeam(lateral=lateral, biology="wedenberg", let_threshold=4.0)
    dij = dose_influence(CASE, beams, machine(), grid=CASE.ct.grid, engine=engine)
    assert dij.images == ("physical_dose", "let_dose", "dirty_dose", "alpha_dose", "sqrt_beta_dose")
    for image in dij.images:
        if image != "dirty_dose":
            compare(dij, beams, image, lateral=lateral)
    dirty, clean = (dij.operators[n][0].to_scipy().toarray() for n in ("dirty_dose", "physical_dose"))
    high = dij.operators["let_dose"][0].to_scipy().toarray() > 4.0 * clean
    np.testing.assert_array_equal(dirty, np.where(high, clean, 0.0))


def test_averages_of_let_by_particles_along_one_spot():
    """Images are dose times what the machine's tables say of its particles; LETt <= LETd, alike for one energy."""
    shipped = library_machine("generic_proton")
    beams = place_beams(CASE, shipped, gantry=0.0, bixel_width=60.0, layer_spacing=60.0)
    dij = dose_influence(CASE, beams, shipped, CASE.ct.grid, ParticlePencilBeam(let_details=True))
    assert dij.images[2:] == LET_DETAILS
    resolver, first = QuantityResolver(dij), np.zeros(beams.count)
    first[0] = 1e3
    layer = shipped.entry(shipped.energy_index(beams[0].energies[0]))
    values = {name: resolver.get(name)(first)[0] for name in ("physical_dose", "primary_let", *NAMED)}
    there = values["physical_dose"] > 0.1 * values["physical_dose"].max()
    assert there.sum() > 50
    assert np.all((values["let_track"] <= 1.0001 * values["primary_let"])[there])
    before = layer.depth <= layer.range80
    depth = np.interp(values["primary_let"][there], layer.primary_let[before], layer.depth[before])
    tracks = 0.1 * layer.primary_dose / np.maximum(layer.primary_fluence, 1e-9)
    inside = depth < layer.range80 - 2.0
    assert inside.sum() > 50
    every = 0.1 * layer.proton_dose / np.maximum(layer.proton_fluence, 1e-9)
    for name, table in zip(NAMED, (tracks, every, layer.let_all), strict=True):
        expected = np.interp(depth, layer.depth, table)[inside]
        np.testing.assert_allclose(values[name][there][inside], expected, rtol=5e-3)
    entrance = np.argmin(np.where(there, values["let_track"], np.inf))
    assert values["let_track"][entrance] == pytest.approx(values["primary_let"][entrance], rel=2e-3)
    with pytest.raises(InputError, match="'small' does not tabulate"):
        ParticlePencilBeam(let_details=True).images_for(machine())


def test_range_shifter():
    shifter = RangeShifter(15.0, 300.0)
    beams = spot_beams(range_shifter=shifter)
    dij = dose_influence(CASE, beams, machine(), grid=CASE.ct.grid)
    compare(dij, beams, "physical_dose", shifter=shifter)


def test_a_range_shifter_inside_the_patient_is_told(caplog):
    """The surface lies 54 mm above the isocentre; a slab whose lower face is 30 mm above it stands 24 mm inside."""
    beams = spot_beams(range_shifter=RangeShifter(15.0, 30.0))
    with caplog.at_level("WARNING"):
        dose_influence(CASE, beams, machine(), grid=CASE.ct.grid)
    assert "up to 24 mm inside the patient: its isocenter_distance must be 54 mm or more" in caplog.text
    caplog.clear()
    with caplog.at_level("WARNING"):
        cases = Scenarios.setup_and_range(setup=3.0, range=0.035)
        dose_influence(CASE, beams, machine(), grid=CASE.ct.grid, scenarios=cases)
    assert caplog.text.count("inside the patient") == len(beams)
    caplog.clear()
    with caplog.at_level("WARNING"):
        dose_influence(CASE, spot_beams(range_shifter=RangeShifter(15.0, 60.0)), machine(), grid=CASE.ct.grid)
    assert "inside the patient" not in caplog.text


def test_a_spot_gives_its_integral_dose():
    """The sum over a plane is Z, whatever the width and the share that is cut off."""
    beams = spot_beams(energies=(ENERGY,))
    layer = machine().entry(machine().energy_index(beams[0].energies[0]))
    for share in (0.9, 0.995):
        engine = ParticlePencilBeam(lateral="double", lateral_cutoff=share)
        grid = CASE.ct.grid.with_spacing((1.0, 3.0, 1.0))
        dij = dose_influence(CASE, beams, machine(), grid=grid, engine=engine)
        volume = np.zeros(grid.shape)
        volume.reshape(-1)[dij.voxels] = dij.forward(np.ones(1))["physical_dose"][0]
        planes = volume.sum(axis=(0, 2))[4:20]
        depths = grid.axes[1][4:20] + 54.0 + 0.0011 * (10000.0 - 54.0 + 500.0 - 10000.0)
        np.testing.assert_allclose(planes, 1.6021766208e-2 * np.interp(depths, layer.depth, layer.dose), rtol=0.02)


@pytest.mark.parametrize("gantry", [90.0, 215.0])
def test_bragg_peak_lies_where_the_beam_points(gantry):
    beams = spot_beams(gantry=gantry, energies=(60.0,), place=(0.0, 0.0))
    dij = dose_influence(CASE, beams, machine(), grid=CASE.ct.grid)
    dose = dij.forward(np.ones(1))["physical_dose"][0]
    points = CASE.ct.grid.points(dij.voxels)
    local = world_to_beam(points, beams[0].isocenter, beams[0].rotation)
    assert np.hypot(*local[np.argmax(dose), :2]) < 3.0


def test_order_of_spots_does_not_matter():
    energies = (80.6, 70.8, 78.6)
    one = dose_influence(CASE, spot_beams(energies=energies), machine(), grid=CASE.ct.grid)
    two = dose_influence(CASE, spot_beams(energies=energies[::-1]), machine(), grid=CASE.ct.grid)
    first, second = (d.operators["let_dose"][0].to_scipy().toarray() for d in (one, two))
    np.testing.assert_array_equal(first, second[:, ::-1])


def test_transpose_belongs_to_matrix():
    beams = place_beams(CASE, machine(), gantry=[0.0, 70.0], bixel_width=6.0)
    dij = dose_influence(CASE, beams, machine(), grid=4.0, engine=ParticlePencilBeam(biology="mcnamara"))
    rng = np.random.default_rng(3)
    for (operator,) in dij.operators.values():
        x, y = rng.random(operator.shape[1]), rng.random(operator.shape[0])
        assert operator.apply(x) @ y == pytest.approx(x @ operator.adjoint(y), rel=1e-5)


def test_images_share_their_places():
    dij = dose_influence(CASE, spot_beams(), machine(), grid=4.0, engine=ParticlePencilBeam(biology="carabe"))
    assert len({id(operator.storage.places) for (operator,) in dij.operators.values()}) == 1


def test_torch_gives_the_same():
    pytest.importorskip("torch")
    beams = place_beams(CASE, machine(), gantry=0.0, bixel_width=6.0)
    here, there = (dose_influence(CASE, beams, machine(), grid=4.0, device=d) for d in ("numpy", "torch:cpu"))
    x = np.ones(beams.count)
    ours, theirs = here.forward(x), there.forward(there.device.asarray(x, "float32"))
    for image in ours:
        np.testing.assert_allclose(theirs[image].numpy(), ours[image], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("biology", "biologic", "radiation", "expected"),
    [
        ("default", False, "protons", ConstantRBE),
        ("default", True, "carbon", "tabulated"),
        ("default", False, "helium", None),
        (None, True, "carbon", None),
        (ConstantRBE(3.0), False, "carbon", ConstantRBE),
        (Wedenberg(q=0.4), False, "protons", Wedenberg),
    ],
)
def test_biology_by_default_and_by_name(biology, biologic, radiation, expected):
    model = ParticlePencilBeam(biology=biology).rbe_model(machine(biologic, radiation))
    if expected is None or isinstance(expected, str):
        assert (model and model.name) == expected
    else:
        assert isinstance(model, expected)


def test_absent_biology_raises_and_constant_rbe_counts():
    beams = spot_beams()
    without = dose_influence(CASE, beams, machine(), grid=4.0, engine=ParticlePencilBeam(biology=None))
    with pytest.raises(InputError, match="rbe"):
        QuantityResolver(without).get("rbe_x_dose")
    constant = dose_influence(CASE, beams, machine(), grid=4.0, dtype="float64")
    weights = np.full(2, 50.0)
    found = QuantityResolver(constant).evaluate(weights, ["rbe_x_dose", "physical_dose"])
    np.testing.assert_allclose(found["rbe_x_dose"], 1.1 * found["physical_dose"], rtol=1e-9)


def test_variable_rbe_rises_with_let():
    dij = dose_influence(CASE, spot_beams(), machine(), grid=4.0, engine=ParticlePencilBeam(biology="wedenberg"))
    found = QuantityResolver(dij).evaluate(np.full(2, 20.0), ["rbe_x_dose", "physical_dose", "let"])
    dosed = found["physical_dose"][0] > 0.1 * found["physical_dose"].max()
    rbe, let = (found["rbe_x_dose"] / np.maximum(found["physical_dose"], 1e-9))[0, dosed], found["let"][0, dosed]
    assert rbe[let > 5.0].mean() > rbe[let < 2.0].mean() + 0.2


def test_tabulated_tissues():
    particles = machine(True)
    dij = dose_influence(CASE, spot_beams(), particles, grid=4.0, engine=ParticlePencilBeam(biology="tabulated"))
    dose, alpha, let = (dij.operators[n][0].to_scipy().toarray() for n in ("physical_dose", "alpha_dose", "let_dose"))
    np.testing.assert_allclose(alpha, 0.1 * dose + 0.05 * let, rtol=1e-4, atol=1e-9)
    mixed = patient(alpha_x=0.5)
    both = dose_influence(mixed, spot_beams(), particles, grid=4.0, engine=ParticlePencilBeam(biology="tabulated"))
    target = both.voxel_parameters["alpha_x"][0] > 0.3
    assert target.any()
    changed = both.operators["alpha_dose"][0].to_scipy().toarray()
    np.testing.assert_allclose(changed[target], (0.5 * dose + 0.05 * let)[target], rtol=1e-4, atol=1e-9)
    np.testing.assert_array_equal(changed[~target], alpha[~target])
    with pytest.raises(InputError, match="give the structures one of those"):
        dose_influence(patient(0.3), spot_beams(), particles, grid=4.0, engine=ParticlePencilBeam(biology="tabulated"))


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (ParticlePencilBeam(biology="mairani"), "made for helium"),
        (ParticlePencilBeam(biology="tabulated"), "does not tabulate"),
    ],
)
def test_models_that_do_not_fit(engine, message):
    with pytest.raises(InputError, match=message):
        dose_influence(CASE, spot_beams(), machine(), grid=4.0, engine=engine)


def test_options_and_inputs_that_cannot_be_used():
    for options in ({"lateral_cutoff": 1.0}, {"let_threshold": 0.0}, {"lateral": "triple"}):
        with pytest.raises(InputError):
            ParticlePencilBeam(**options)
    bare = Beams.from_rays(
        [[[0.0, 0.0]]], gantry=0.0, isocenter=(0, 0, 0), sad=1e4, bixel_width=5.0, machine="small", radiation="protons"
    )
    with pytest.raises(InputError, match="no energies"):
        dose_influence(CASE, bare, machine(), grid=4.0)
    with pytest.raises(InputError, match="photons"):
        dose_influence(CASE, spot_beams(), machine(), grid=4.0, engine=PhotonPencilBeam())
    assert ENGINES.get("particle_pencil_beam") is ParticlePencilBeam
    assert library_machine("generic_photon_6mv").radiation not in ParticlePencilBeam.radiation
