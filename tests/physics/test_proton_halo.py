"""The halo of proton beams against MCsquare: dose in squares and outside disks around single beams in water.

The table is in `tests/data/outside`; `tests/benchmarks/proton_halo.py` made it. Energies of 120 and 180 MeV are none of
those that the halo of commissioned machines was fitted to.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

import radplan as rp
from radplan.beams.beam import Beams
from radplan.engines import ParticlePencilBeam
from radplan.machines import library_machine
from radplan.machines.generate.halo import mcsquare_halo, soukup_halo
from tests.benchmarks.proton_halo import STEP, machine, mean_range, of_layer, over_ten, shares, water

TABLE = np.genfromtxt(Path(__file__).parents[1] / "data" / "outside" / "mcsquare_halo.csv", delimiter=",", names=True)
SQUARES = [name for name in TABLE.dtype.names if name.startswith("square")]
BEYOND = [name for name in TABLE.dtype.names if name.startswith("beyond")]


def rows(energy):
    """Return depths [mm], shares in squares and shares beyond disks of MCsquare."""
    chosen = TABLE[TABLE["energy_MeV"] == energy]
    return chosen["depth_mm"], *(np.stack([chosen[name] for name in names], axis=1) for names in (SQUARES, BEYOND))


@cache
def through_the_engine(energy, cutoff):
    """Return what the engine gives around one spot, by depth."""
    linac, patient = machine(energy), water(mean_range(energy))
    beams = Beams.from_rays(
        [np.zeros((1, 2))], gantry=0.0, isocenter=(0.0, 0.0, 0.0), sad=linac.sad, bixel_width=STEP,
        machine=linac.name, radiation="protons", energies=[np.asarray([energy])],
    )  # fmt: skip
    engine = ParticlePencilBeam(lateral="accurate", lateral_cutoff=cutoff, biology=None, let=False)
    dij = rp.dose_influence(patient, beams, linac, grid=patient.ct.grid, engine=engine)
    dose = np.zeros(patient.ct.grid.size)
    dose[dij.voxels] = np.asarray(dij.forward(np.asarray([1.0]))["physical_dose"])[0]
    return shares(dose.reshape(patient.ct.grid.shape))


@pytest.mark.parametrize("energy", [120.0, 180.0])
def test_fields_lose_dose_with_their_size_as_in_mcsquare(energy):
    """Dose on the axis over that of the 10x10, squares of 2 to 8 cm."""
    depths, squares, beyond = rows(energy)
    ours = through_the_engine(energy, 0.9999)
    for depth, theirs, outer in zip(depths, squares, beyond, strict=True):
        near = [np.interp(depth, ours["depth"], column) for column in ours["square"].T]
        error = (over_ten(np.asarray(near)) - over_ten(theirs))[:6]
        assert np.abs(error).max() < 0.008, depth
        mine = [np.interp(depth, ours["depth"], column) for column in ours["beyond"].T]
        assert mine[1] == pytest.approx(outer[1], rel=0.25, abs=0.002), depth


@pytest.mark.parametrize("energy", [120.0, 180.0])
def test_the_halo_of_soukup_is_narrower(energy):
    """0.3 to 2 % more dose in the 4x4, and less beyond 20 mm, than MCsquare; the new one is nearer."""
    layer = machine(energy).entry(0)
    for depth, theirs, outer in zip(*rows(energy), strict=True):
        pairs = [of_layer(layer, depth, halo) for halo in ("own", "soukup")]
        own, soukup = (over_ten(squares)[2] - over_ten(theirs)[2] for squares, _ in pairs)
        if depth < 0.7 * mean_range(energy):
            assert soukup > 0.003
            assert pairs[1][1][1] < 0.6 * outer[1] < pairs[0][1][1]
        assert abs(own) < max(abs(soukup), 0.004)


def test_the_halo_between_and_beyond_its_table():
    share, spread = mcsquare_halo(157.7, np.asarray([0.0, 0.025, 0.05, 0.5, 1.0, 1.2]) * 157.7)
    assert share[0] == 0.0
    assert share[1] == pytest.approx(0.5 * share[2])
    assert (share[-1], spread[-1]) == (share[-2], spread[-2])
    for low, high in ((20.0, 40.0), (317.0, 380.0)):
        near, far = (mcsquare_halo(reach, np.asarray([0.5 * reach])) for reach in (low, high))
        assert np.ravel(near) == pytest.approx(np.ravel(far), rel=2e-3)


def test_the_generic_machine_has_the_halo_of_soukup():
    layer = library_machine("generic_proton").layers[60]
    share, added = soukup_halo(mean_range(layer.energy), layer.depth)
    np.testing.assert_allclose(layer.weight, share, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.sigma2, np.hypot(layer.sigma1, added), rtol=1e-4)
