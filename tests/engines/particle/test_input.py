"""Input that particle dose cannot be calculated from: one clear error each, which says what to do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.io import savemat

from radplan.beams import Beams, place_beams
from radplan.biology.rbe import ConstantRBE
from radplan.engines import ParticlePencilBeam, dose_influence
from radplan.errors import InputError
from radplan.io.load import load_machine
from radplan.patient.structures import Structures
from radplan.quantities import QuantityResolver
from tests.particle_case import GRID, layer, machine, patient

CASE = patient()


def dij(case=CASE, particles=None, **options):
    chosen = particles or machine()
    beams = place_beams(case, chosen, gantry=0.0, bixel_width=6.0)
    return dose_influence(case, beams, chosen, grid=4.0, engine=ParticlePencilBeam(**options))


def without_let():
    whole = machine()
    return replace(whole, layers=tuple(replace(entry, let=None) for entry in whole.layers))


def with_tissues(**changes):
    """The case with its target's properties changed, and a second target that shares voxels with it."""
    target, body = CASE.structures["PTV"], CASE.structures["BODY"]
    moved = np.zeros(GRID.shape, dtype=bool)
    moved[6:10, 20:26, 6:10] = True
    other = replace(target, name="boost", voxels=np.flatnonzero(moved), **changes)
    return replace(CASE, structures=Structures([target, other, body]))


def test_a_target_beyond_the_range():
    low = machine()
    low = replace(low, layers=low.layers[:4])
    with pytest.raises(InputError, match=r"places peaks at .* but the targets lie at .*: choose other angles"):
        place_beams(CASE, low, gantry=0.0)


@pytest.mark.parametrize(
    ("options", "quantity", "message"),
    [
        ({}, "let", "a particle machine that tabulates LET"),
        ({}, "let_x_dose", "a particle machine that tabulates LET"),
        ({}, "dirty_dose", "let_threshold="),
        ({"biology": None}, "rbe_x_dose", "rbe"),
    ],
)
def test_an_image_that_is_not_there(options, quantity, message):
    model = dij(particles=without_let(), **options)
    assert "let_dose" not in model.images
    with pytest.raises(InputError, match=message):
        QuantityResolver(model).get(quantity)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"biology": "wedenberg"}, "needs LET, which machine 'small' does not tabulate: choose another model"),
        ({"let_threshold": 2.5}, "dirty dose needs LET.*leave let_threshold out"),
        ({"biology": "tabulated"}, "needs alpha and beta, which machine 'small' does not tabulate"),
    ],
)
def test_an_option_that_needs_what_the_machine_lacks(options, message):
    with pytest.raises(InputError, match=message):
        dij(particles=without_let(), **options)


def test_a_tissue_without_radiosensitivity():
    case = with_tissues(alpha_x=0.0, beta_x=0.0, priority=1)
    with pytest.raises(InputError, match=r"structure 'boost' has alpha_x = 0 and beta_x = 0.*alpha_x=0.1"):
        dij(case, biology="mcnamara")
    assert dij(case, biology=ConstantRBE()).images == ("physical_dose", "let_dose")
    finite = dij(with_tissues(alpha_x=0.1, beta_x=0.0, priority=0), biology="mcnamara")
    for values in finite.forward(np.ones(finite.variables.count)).values():
        assert np.all(np.isfinite(values))


def test_a_tissue_that_is_not_tabulated():
    with pytest.raises(InputError, match=r"0\.1/0\.05, 0\.5/0\.05 only.*give the structures one of those"):
        dij(with_tissues(alpha_x=0.3, priority=0), particles=machine(True), biology="tabulated")


def test_overlapping_tissues():
    case = with_tissues(alpha_x=0.5)
    with pytest.raises(InputError, match=r"'PTV' and 'boost' share 32 voxels.*priority that goes first"):
        dij(case, biology="mcnamara")
    assert dij(with_tissues(alpha_x=0.5, priority=0), biology="mcnamara").images
    assert dij(with_tissues(), biology="mcnamara").images
    assert dij(case).images, "a constant RBE does not ask"


def test_tables_below_zero():
    entry = layer(60.0, biology=True)
    with pytest.raises(InputError, match=r"alpha must be finite and >= 0, its worst value is -0.1"):
        replace(entry, alpha=entry.alpha - entry.alpha.min() - 0.1)
    with pytest.raises(InputError, match="let must be finite and >= 0"):
        replace(entry, let=-entry.let)


def electrons(tmp_path, shape):
    """A matRad machine file of 100 and 150 MeV electrons: a flat depth dose that broadens with depth."""
    depth = np.linspace(0.0, 200.0, 41)
    spread = 0.05 * depth + 1e-4 * depth**2
    focus = {"dist": [0.0, 2000.0], "sigma": [3.0, 3.0], "SisFWHMAtIso": 7.06}
    tables = {"sigmaXY": np.stack([spread, 1.5 * spread], axis=1)} if shape == "singleGaussXY" else {
        "sigma1": spread, "sigma2": 3.0 * spread + 2.0, "weight": np.full(depth.size, 0.1)
    }  # fmt: skip
    entries = [
        {
            "energy": energy,
            "depths": depth,
            "Z": 2.0 - 0.002 * depth,
            "peakPos": 40.0 + energy / 10.0,
            "initFocus": focus,
        }
        | tables
        for energy in (100.0, 150.0)
    ]
    path = tmp_path / "VHEE_small.mat"
    meta = {"radiationMode": "VHEE", "dataType": shape, "machine": "small", "SAD": 1000.0, "BAMStoIsoDist": 500.0}
    savemat(path, {"machine": {"meta": meta, "data": entries}})
    return load_machine(str(path))


@pytest.mark.parametrize("shape", ["doubleGauss", "singleGaussXY"])
def test_a_machine_of_electrons_gives_dose(tmp_path, shape):
    particles = electrons(tmp_path, shape)
    assert particles.radiation == "VHEE"
    places = np.stack(np.meshgrid(np.arange(-9.0, 10.0, 6.0), np.arange(-9.0, 10.0, 6.0)), axis=-1).reshape(-1, 2)
    beams = Beams.from_rays(
        [places, places], gantry=[0.0, 90.0], isocenter=(0.0, 0.0, 0.0), sad=1000.0, bixel_width=6.0,
        machine=particles.name, radiation="VHEE", energies=[np.full(16, 150.0)] * 2,
    )  # fmt: skip
    model = dose_influence(CASE, beams, particles, grid=3.0)
    assert model.images == ("physical_dose",)
    assert model.radiation == "VHEE"
    weights = np.ones(beams.count)
    dose = model.forward(weights)["physical_dose"][0]
    target = np.isin(model.voxels, CASE.structures["PTV"].voxels)
    assert dose[target].min() > 0.5 * dose.max()
    fly = dose_influence(CASE, beams, particles, grid=3.0, stored=False).forward(np.ones(beams.count))["physical_dose"][
        0
    ]
    np.testing.assert_allclose(fly, dose, rtol=0, atol=1e-5 * dose.max())


def test_a_share_that_the_shells_of_matrad_never_hold():
    with pytest.raises(InputError, match=r"lateral_cutoff=0.9999 .* hold at most 0.999.* cutoff_rule='exact'"):
        dij(lateral_cutoff=0.9999, cutoff_rule="matrad")
    assert dij(lateral_cutoff=0.999, cutoff_rule="matrad").images
    assert dij(lateral_cutoff=0.9999).images
