"""What was measured of jaws and leaves: it takes the place of the description, and travels with the machine file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from radplan.engines.aperture.fluence import ApertureFluence, Motion
from radplan.errors import InputError
from radplan.machines import Collimation, library_machine, library_mlc, read_photon_machine, write_photon_machine


def test_measured_values_win_and_the_rest_stays():
    mlc = Collimation(leaf_transmission=0.009).of(library_mlc("Millennium 120"))
    assert (mlc.transmission, mlc.leaf_offset, mlc.pairs) == (0.009, 0.7, 60)


def test_it_travels_with_the_machine_file(tmp_path):
    told = Collimation(3.0, 0.005, 0.011, 0.4)
    write_photon_machine(replace(library_machine("generic_photon_6mv"), collimation=told), tmp_path / "linac.npz")
    assert read_photon_machine(tmp_path / "linac.npz").collimation == told
    assert library_machine("generic_photon_6mv").collimation == Collimation()


@pytest.mark.parametrize(
    "wrong", [{"leaf_end_fwhm": -1.0}, {"jaw_transmission": 1.0}, {"leaf_transmission": -0.1}, {"leaf_offset": np.inf}]
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Collimation(**wrong)


def test_edges_along_and_across_are_as_sharp_as_their_own_blur():
    """20 to 80 % of a Gaussian edge are 1.6832 standard deviations apart."""
    along, across = np.arange(-30.0, 30.1, 0.1), np.arange(-30.0, 30.1, 0.1)
    fluence = ApertureFluence(along, across, np.asarray([-10.0, 10.0]), (2.0, 1.0), 0.0, 0.0, 0.0, 1e-3)
    leaves, jaws = np.asarray([[[-12.0, 12.0]]]), np.asarray([[-12.0, 12.0]])
    motion = Motion((leaves,) * 2, (np.asarray([[-100.0, 100.0]]),) * 2, (jaws,) * 2, np.ones(1))
    image, centres = fluence.fluence(motion), 0.5 * (along[1:] + along[:-1])
    for line, sigma in ((image[:, 300], 2.0), (image[300, :], 1.0)):
        outer = centres > 3.0
        low, high = np.interp([-0.8, -0.2], -line[outer] / line[300], centres[outer])
        assert high - low == pytest.approx(1.6832 * sigma, rel=2e-3)


def test_both_blurs_keep_exact_slopes():
    rng = np.random.default_rng(3)
    edges = np.arange(-25.0, 25.5, 0.5)
    fluence = ApertureFluence(edges, edges, np.asarray([-10.0, 0.0, 10.0]), (2.0, 1.0), 0.3, 0.01, 0.004, 0.2)
    cotangent = rng.normal(size=(edges.size - 1,) * 2)
    leaves, jaws = np.asarray([[[-8.0, 7.0], [-3.0, 9.0]]]), np.asarray([[-9.0, 9.5]])

    def value(move):
        given = leaves + move * way, jaws + move * jaw_way
        return float(np.sum(cotangent * fluence.fluence(motion(*given))))

    def motion(ends, blocks):
        return Motion((ends, ends + 1.0), (np.asarray([[-20.0, 20.0]]),) * 2, (blocks,) * 2, np.asarray([2.0]))

    way, jaw_way = rng.normal(size=leaves.shape), rng.normal(size=jaws.shape)
    slope = fluence.pullback(motion(leaves, jaws), cotangent)
    expected = np.sum((slope.leaves[0] + slope.leaves[1]) * way) + np.sum((slope.across[0] + slope.across[1]) * jaw_way)
    assert (value(1e-4) - value(-1e-4)) / 2e-4 == pytest.approx(expected, rel=1e-6)
