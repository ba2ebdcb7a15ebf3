"""Head scatter, monitor back-scatter, tongue and groove: values that can be calculated otherwise, and gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from radplan.arrays import as_device, to_numpy
from radplan.beams.control_points import ControlPoint, TreatmentField
from radplan.engines.aperture.fluence import ApertureFluence, Motion
from radplan.engines.aperture.head import HeadScatter, MonitorBackScatter
from radplan.engines.aperture.model import ApertureOptions, aperture_model
from radplan.errors import InputError
from radplan.machines import library_machine
from radplan.machines.head import Head
from radplan.machines.mlc import library_mlc
from radplan.patient.phantoms import phantom

CHAMBER = MonitorBackScatter(0.02, 0.01, upper_along=False, along=True, across=True)


def apertures(place, **options):
    """Return the fluence of three rows of leaves on pixels of 1 mm by 0.5 mm."""
    edges = (
        place.asarray(np.arange(-40.0, 40.5, 1.0), "float64"),
        place.asarray(np.arange(-20.0, 20.25, 0.5), "float64"),
    )
    settings = {"sigma": 1.06, "leaf_offset": 0.0, "transmission": 0.0, "jaw_transmission": 0.0, "softness": 0.2}
    return ApertureFluence(
        *edges, place.asarray(np.asarray([-15.0, -5.0, 5.0, 15.0]), "float64"), **{**settings, **options}
    )


def motion(place, first, last, along=(-100.0, 100.0), across=(-100.0, 100.0), mu=1.0):
    leaves = tuple(place.asarray(np.asarray(ends, dtype=float)[None], "float64") for ends in (first, last))
    jaws = (place.asarray(np.asarray(pair)[None], "float64") for pair in (along, across))
    x, y = ((pair, pair + 0.5) for pair in jaws)
    return Motion(leaves, x, y, place.asarray(np.asarray([mu]), "float64"))


@pytest.mark.parametrize("sigma", [8.0, (6.0, 11.0)])
def test_head_scatter_is_a_gaussian_blur(xp_device, sigma):
    fluence = np.zeros((90, 70))
    fluence[30:55, 20:50] = np.random.default_rng(2).uniform(0.0, 1.0, (25, 30))
    head = Head(scatter=0.1, scatter_sigma=sigma)
    found = HeadScatter.of(head, fluence.shape, 1.0, xp_device).apply(xp_device.asarray(fluence, "float64"))
    widths = np.sqrt(np.square(sigma) + 1.0 / 6.0)
    blurred = gaussian_filter(fluence, widths, mode="constant", truncate=8.0)
    np.testing.assert_allclose(to_numpy(found), 0.9 * fluence + 0.1 * blurred / head.visible(100.0), atol=1e-7)


def test_head_scatter_is_its_own_transpose(xp_device):
    made = HeadScatter.of(Head(0.08, 22.0), (60, 45), 1.5, xp_device)
    x, y = (np.random.default_rng(seed).normal(size=(60, 45)) for seed in (1, 2))
    forward, back = made.apply(xp_device.asarray(x, "float64")), made.adjoint(xp_device.asarray(y, "float64"))
    assert np.sum(to_numpy(forward) * y) == pytest.approx(np.sum(x * to_numpy(back)), rel=1e-12)


def test_the_second_source_does_not_depend_on_the_pixel():
    wide = np.zeros((200, 200))
    wide[60:140, 60:140] = 1.0
    fine = HeadScatter.of(Head(0.08, 22.0), wide.shape, 1.0, as_device("numpy")).apply(wide)
    coarse_field = wide.reshape(50, 4, 50, 4).mean(axis=(1, 3))
    coarse = HeadScatter.of(Head(0.08, 22.0), (50, 50), 4.0, as_device("numpy")).apply(coarse_field)
    np.testing.assert_allclose(coarse, fine.reshape(50, 4, 50, 4).mean(axis=(1, 3)), atol=1e-6)


def test_output_depends_on_jaws_as_stated():
    def output(x, y):
        return float(CHAMBER.output(np.asarray([[-x / 2, x / 2]]), np.asarray([[-y / 2, y / 2]]))[0])

    assert output(100.0, 100.0) == pytest.approx(1.0, abs=1e-4)
    # upper jaws (y) at 40 cm, lower at 10 cm: 1 + 0.02 * 3/4 + 0.01 * 1/4 * 3/4 over 1 + 0.01 * 3/4
    assert output(100.0, 400.0) == pytest.approx(1.016875 / 1.0075, abs=1e-4)
    assert output(100.0, 300.0) > output(300.0, 100.0) > 1.0 > output(30.0, 30.0)
    absent = replace(CHAMBER, along=False)
    wide = np.asarray([[-1000.0, 1000.0]])
    assert float(absent.output(wide, np.asarray([[-50.0, 50.0]]))[0]) == pytest.approx(1.0, abs=1e-4)


def test_a_groove_stays_dark_between_fields_that_meet_at_a_leaf():
    place = as_device("numpy")
    one, other = [[-30.0, 30.0], [-30.0, 30.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0], [-30.0, 30.0]]
    lines = []
    for width in (0.0, 0.8):
        made = apertures(place, tongue_groove=width)
        lines.append(sum(made.fluence(motion(place, ends, ends))[40, :] for ends in (one, other)))
    assert np.sum(lines[0] - lines[1]) * 0.5 == pytest.approx(0.8, rel=0.025)  # [mm]; neighbours' tie lets 2 % through
    assert 0.65 < lines[1][20:60].min() < 0.8
    np.testing.assert_allclose(lines[0][22:58], 1.0, atol=1e-4)


def test_jaws_may_let_through_differently():
    place = as_device("numpy")
    made = apertures(place, transmission=0.1, jaw_transmission=(0.02, 0.004))
    ends = [[-30.0, 10.0]] * 3
    shut = motion(place, ends, ends, (0.0, 90.0), (-6.0, 5.0))
    fluence = made.fluence(shut)
    expected = {(45, 40): 1.0, (20, 40): 0.02, (45, 62): 0.004, (20, 62): 0.02 * 0.004, (70, 40): 0.1, (70, 62): 0.0004}
    for pixel, value in expected.items():
        assert fluence[pixel] == pytest.approx(value, rel=2e-3), pixel


def test_neighbours_that_stand_alike_have_no_groove():
    place = as_device("numpy")
    ends = [[-20.0, 13.0]] * 3
    plain, grooved = (apertures(place, tongue_groove=width).fluence(motion(place, ends, ends)) for width in (0.0, 0.8))
    np.testing.assert_allclose(grooved, plain, atol=1e-12)


def test_all_of_it_is_differentiable(xp_device):
    """Sweeping leaves, one nearly closed, one under a jaw; central differences in float64."""
    made = apertures(
        xp_device,
        tongue_groove=0.8,
        back_scatter=CHAMBER,
        transmission=0.015,
        jaw_transmission=(0.02, 0.004),
        leaf_offset=0.3,
    )
    first, last = [[-20.0, -8.0], [-3.0, -2.4], [-40.0, -33.0]], [[-4.0, 9.0], [1.0, 1.6], [-39.0, -31.0]]
    start = motion(xp_device, first, last, (-25.0, 12.0), (-13.0, 9.0), 2.0)
    flat = [*start.leaves, *start.along, *start.across, start.mu]
    cotangent = np.random.default_rng(4).uniform(-1.0, 1.0, (80, 80))
    found = made.pullback(start, xp_device.asarray(cotangent, "float64"))
    gradient = [*found.leaves, *found.along, *found.across, found.mu]
    scale = max(float(np.max(np.abs(to_numpy(part)))) for part in gradient)

    def value(parts):
        moved = Motion((parts[0], parts[1]), (parts[2], parts[3]), (parts[4], parts[5]), parts[6])
        return float(np.sum(to_numpy(made.fluence(moved)) * cotangent))

    for number, part in enumerate(flat):
        host = to_numpy(part)
        for place in [0, host.size - 1] if number else range(host.size):
            values = []
            for step in (1e-5, -1e-5):
                changed = host.copy()
                changed.flat[place] += step
                moved = [*flat]
                moved[number] = xp_device.asarray(changed, "float64")
                values.append(value(moved))
            slope = (values[0] - values[1]) / 2e-5
            assert float(to_numpy(gradient[number]).flat[place]) == pytest.approx(slope, abs=1e-6 * scale)


@pytest.mark.parametrize("device", ["numpy", "torch:cpu"])
def test_rows_beyond_the_pixels_may_be_left_out(device):
    """A Millennium 120 seen on a strip of its width: fluence and gradients as on pixels that see all of its leaves.

    Jaws cut by a smooth step, so that rows behind them still have widths of a micrometre.
    """
    mlc, rng, here = library_mlc("Millennium 120"), np.random.default_rng(0), as_device(device)
    middle, width = rng.uniform(-30.0, 30.0, (1, 60, 1)), rng.uniform(5.0, 50.0, (1, 60, 1))
    first = np.concatenate([middle - width / 2, middle + width / 2], axis=2)[0]
    weights = rng.normal(size=(120, 80))

    def seen(half, place):
        across = place.asarray(np.arange(-half, half + 0.5), "float64")
        leaves = place.asarray(mlc.boundaries.copy(), "float64")
        made = replace(apertures(place, tongue_groove=0.8), across=across, boundaries=leaves)
        ends = motion(place, first, first + 4.0, (-30.0, 30.0), (-30.0, 30.0))
        middle = slice(int(half) - 40, int(half) + 40)
        cotangent = np.zeros((80, 2 * int(half)))
        cotangent[:, middle] = weights[:80]
        back = made.pullback(ends, place.asarray(cotangent, "float64"))
        parts = [*back.leaves, *back.along, *back.across, back.mu]
        return to_numpy(made.fluence(ends))[:, middle], np.concatenate([to_numpy(part).ravel() for part in parts])

    (whole, every), (part, found) = seen(200.0, as_device("numpy")), seen(40.0, here)
    np.testing.assert_allclose(part, whole, atol=5e-4)
    np.testing.assert_allclose(found, every, atol=1e-3 * np.max(np.abs(every)))


def test_options_switch_everything_off():
    patient, linac, mlc = phantom("box"), library_machine("generic_photon_6mv"), library_mlc("Millennium 120")
    leaves = np.zeros((60, 2))
    leaves[26:30], leaves[30:34] = (-20.0, 5.0), (-5.0, 20.0)
    points = tuple(
        ControlPoint(mu, 0.0, 0.0, 0.0, (0.0, 0.0, 0.0), (-30.0, 30.0), (-30.0, 30.0), leaves) for mu in (0.0, 100.0)
    )
    field = TreatmentField("test", 1, points, 1000.0, mlc.boundaries)

    def dose(machine, collimator, **options):
        model = aperture_model(patient, [field], machine, collimator, 20.0, ApertureOptions(**options))
        return model.forward(np.asarray(model.variables.start))["physical_dose"]

    off = {"head_scatter": False, "back_scatter": False, "tongue_and_groove": False}
    plain = dose(replace(linac, head=Head()), replace(mlc, tongue_groove=0.0))
    np.testing.assert_array_equal(dose(linac, mlc, **off), plain)
    for name in off:
        assert np.max(np.abs(dose(linac, mlc, **{**off, name: True}) - plain)) > 5e-4 * plain.max(), name


def test_wrong_values_raise():
    with pytest.raises(InputError, match=r"scatter of a linac's head must lie in \[0, 1\), got 1"):
        Head(scatter=1.0)
    with pytest.raises(InputError, match="scatter_sigma of a linac's head must be > 0 mm, one or two, got 0"):
        Head(scatter_sigma=0.0)
    with pytest.raises(InputError, match=r"must be > 0 mm, one or two, got \(20.0, 0.0\)"):
        Head(scatter_sigma=(20.0, 0.0))
    with pytest.raises(InputError, match="tongue_groove must be >= 0 mm and below the width"):
        replace(library_mlc("Agility"), tongue_groove=5.0)
