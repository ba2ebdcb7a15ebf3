"""Spots by energy layer: geometry that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.beams import Beam, Beams, place_beams
from radplan.beams.range_shifter import RangeShifter
from radplan.beams.spots import place_spots
from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.machines import library_machine
from tests.particle_case import machine, patient

GRID = Grid((5, 60, 5), (2.0, 2.0, 2.0), (-4.0, -59.0, -4.0))
SOURCE = np.asarray([0.0, -10000.0, 0.0])


def slab(first, last):
    target = np.zeros(GRID.shape, dtype=bool)
    target[:, first:last] = True
    return target


def spots(target, spacing, density=1.0, **options):
    rho = np.full(GRID.shape, density, dtype=np.float32)
    return place_spots(rho, target, GRID, SOURCE, np.zeros((1, 3)), machine(), spacing, **options)


def test_peaks_lie_in_the_target():
    rays, energies = spots(slab(20, 30), spacing=0.1)
    peaks = machine().peaks[energies]
    air = 0.0011 * (10000.0 - 60.0 + 500.0 - 10000.0)
    inside = (machine().peaks >= 40.0 + air) & (machine().peaks <= 60.0 + air)
    np.testing.assert_array_equal(peaks, machine().peaks[inside])
    assert not rays.any()


def test_a_dense_patient_needs_more_energy():
    light, dense = (spots(slab(20, 30), spacing=0.1, density=rho)[1] for rho in (0.8, 1.2))
    assert dense.min() > light.min()
    assert dense.max() > light.max()


def test_layers_keep_their_distance():
    peaks = machine().peaks[spots(slab(15, 45), spacing=6.0)[1]]
    assert np.all(np.diff(peaks) >= 5.4)
    assert np.all(np.diff(peaks) <= 5.4 + np.diff(machine().peaks).max())


def test_two_passages_leave_out_what_lies_between():
    peaks = machine().peaks[spots(slab(15, 20) | slab(30, 35), spacing=0.1)[1]]
    assert not np.any((peaks > 40.5) & (peaks < 59.5))
    assert np.any(peaks < 40.5)
    assert np.any(peaks > 59.5)


def test_an_oblique_ray_through_a_concave_target_has_peaks_in_both_passages_alone():
    """Faces by closed form: depth (y + 60) / cos 30 degrees in water behind 431 mm more air than the machine's own."""
    grid, slope = Grid((5, 60, 60), (2.0, 2.0, 2.0), (-59.0, -59.0, -4.0)), np.cos(np.pi / 6)
    target = np.zeros(grid.shape, dtype=bool)
    target[:, 15:20], target[:, 30:35] = True, True
    source = 10000.0 * np.asarray([np.sin(np.pi / 6), -slope, 0.0])
    water = np.ones(grid.shape, dtype=np.float32)
    _, energies = place_spots(water, target, grid, source, np.zeros((1, 3)), machine(), 0.1)
    air = 0.0011 * (500.0 - 60.0 / slope)
    depths = (machine().peaks - air) * slope
    inside = ((depths >= 30.0) & (depths <= 40.0)) | ((depths >= 60.0) & (depths <= 70.0))
    np.testing.assert_array_equal(machine().peaks[energies], machine().peaks[inside])


def test_a_range_shifter_asks_for_more_energy():
    peaks = machine().peaks[spots(slab(20, 30), spacing=0.1, shift=20.0)[1]] - 20.0
    air = 0.0011 * (10000.0 - 60.0 + 500.0 - 10000.0)
    assert 40.0 + air <= peaks.min() < 43.0 + air
    assert 57.0 + air < peaks.max() <= 60.0 + air


def test_out_of_range_says_what_to_do():
    with pytest.raises(InputError, match="use a range shifter"):
        spots(slab(1, 3), spacing=2.0)
    rho = np.ones(GRID.shape, np.float32)
    electrons = machine(radiation="VHEE")
    with pytest.raises(InputError, match="lower energies"):
        place_spots(rho, slab(1, 3), GRID, SOURCE, np.zeros((1, 3)), electrons, 2.0)
    with pytest.raises(InputError, match="higher energies"):
        spots(slab(50, 60), spacing=2.0, density=3.0)
    with pytest.raises(InputError, match="no ray"):
        place_spots(np.ones(GRID.shape, np.float32), slab(20, 30), GRID, SOURCE, np.full((1, 3), 500.0), machine(), 2.0)
    with pytest.raises(InputError, match="layer_spacing"):
        spots(slab(20, 30), spacing=0.0)


def test_place_beams_with_particles():
    beams = place_beams(patient(), machine(), gantry=[0.0, 90.0], bixel_width=6.0, layer_spacing=4.0)
    assert beams.radiation == "protons"
    assert [beam.energies.size for beam in beams] == [beam.count for beam in beams]
    for beam in beams:
        order = np.lexsort((beam.energies, beam.bixels[:, 1], beam.bixels[:, 0]))
        np.testing.assert_array_equal(order, np.arange(beam.count))


def test_layers_are_no_matter_of_photons():
    with pytest.raises(InputError, match="photons"):
        place_beams(patient(), library_machine("generic_photon_6mv"), gantry=0.0, layer_spacing=3.0)


def test_a_place_may_repeat_for_other_energies_only():
    common = {"couch": 0.0, "collimator": 0.0, "isocenter": np.zeros(3), "sad": 10000.0, "bixel_width": 5.0}
    Beam(0.0, bixels=np.zeros((2, 2)), energies=np.asarray([100.0, 110.0]), **common)
    with pytest.raises(InputError, match="for each energy"):
        Beam(0.0, bixels=np.zeros((2, 2)), energies=np.asarray([100.0, 100.0]), **common)
    with pytest.raises(InputError, match="one number > 0"):
        Beam(0.0, bixels=np.zeros((2, 2)), energies=np.asarray([100.0]), **common)


def test_ray_lists_need_energies_for_every_beam():
    with pytest.raises(InputError, match="energies for 1 beams"):
        Beams.from_rays(
            [[[0.0, 0.0]], [[0.0, 0.0]]], gantry=[0.0, 90.0], isocenter=(0, 0, 0), sad=1e4, bixel_width=5.0,
            machine="m", energies=[[100.0]],
        )  # fmt: skip


def test_range_shifter_broadening():
    """A slab of half the range: sigma at its end about 0.5 % of it per unit, growing with the gap."""
    shifter = RangeShifter(80.0, 300.0)
    gaps = np.asarray([0.0, 100.0, 200.0])
    variance = shifter.variance(gaps, range80=160.0)
    assert 1.0 < np.sqrt(variance[0]) < 3.0
    assert np.all(np.diff(variance) > 0)
    assert np.all(shifter.variance(gaps, 160.0, charge=6, mass=12) < 0.2 * variance)
    with pytest.raises(InputError, match="leaves nothing"):
        shifter.variance(gaps, range80=80.0)
    with pytest.raises(InputError, match="thickness"):
        RangeShifter(0.0, 100.0)


def test_range_margins_add_layers_in_front_and_behind():
    plain, wide = (machine().peaks[spots(slab(20, 30), 0.1, range_margin=m)[1]] for m in ((0.0, 0.0), (0.05, 1.0)))
    air = 0.0011 * (10000.0 - 60.0 + 500.0 - 10000.0)
    every = machine().peaks
    inside = (every >= 40.0 * 0.95 - 1.0 + air) & (every <= 60.0 * 1.05 + 1.0 + air)
    np.testing.assert_array_equal(wide, every[inside])
    assert wide.min() < plain.min()
    assert wide.max() > plain.max()
    with pytest.raises(InputError, match="range_margin"):
        spots(slab(20, 30), 0.1, range_margin=(1.5, 0.0))


def test_electrons_take_no_range_shifter():
    with pytest.raises(InputError, match="would only scatter the electrons of machine"):
        place_beams(patient(), machine(radiation="VHEE"), gantry=0.0, range_shifter=RangeShifter(20.0, 300.0))


def test_margins_of_a_plan():
    case = patient()
    plain = place_beams(case, machine(), gantry=0.0, bixel_width=4.0)
    set_up = place_beams(case, machine(), gantry=0.0, bixel_width=4.0, setup_margin=6.0)
    deep = place_beams(case, machine(), gantry=0.0, bixel_width=4.0, range_margin=(0.035, 1.0))
    assert np.ptp(set_up[0].bixels[:, 0]) == pytest.approx(np.ptp(plain[0].bixels[:, 0]) + 8.0, abs=4.1)
    assert {tuple(place) for place in plain[0].bixels} <= {tuple(place) for place in set_up[0].bixels}
    assert deep[0].energies.max() > plain[0].energies.max()
    assert deep[0].energies.min() < plain[0].energies.min()
    with pytest.raises(InputError, match="setup_margin"):
        place_beams(case, machine(), gantry=0.0, setup_margin=-1.0)
    with pytest.raises(InputError, match="range_margin"):
        place_beams(case, library_machine("generic_photon_6mv"), gantry=0.0, range_margin=(0.03, 0.0))


def test_a_target_partly_out_of_range_is_told(caplog):
    with caplog.at_level("WARNING"):
        spots(slab(40, 60), spacing=2.0)
    assert "the deepest peak lies at" in caplog.text
    caplog.clear()
    with caplog.at_level("WARNING"):
        spots(slab(2, 30), spacing=2.0)
    assert "use a range shifter" in caplog.text
