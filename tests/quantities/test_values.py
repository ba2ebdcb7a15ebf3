"""Values of the quantities: by hand for photons, and through images for ions."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.arrays import to_numpy
from radplan.errors import InputError
from radplan.quantities import LET, QUANTITIES, LETxDose, QuantityResolver

# Weights (2, 1) give doses 2, 1.5, 2 Gy; with alpha 0.1 and beta 0.05 the effects are 0.4, 0.2625, 0.4.
X = np.asarray([2.0, 1.0])
BY_HAND = {
    "physical_dose": [2.0, 1.5, 2.0],
    "alpha_dose": [0.2, 0.15, 0.2],
    "sqrt_beta_dose": [0.05**0.5 * 2.0, 0.05**0.5 * 1.5, 0.05**0.5 * 2.0],
    "effect": [0.4, 0.2625, 0.4],
    "rbe_x_dose": [2.0, 1.5, 2.0],
    "bed": [4.0, 2.625, 4.0],
    "eqd2": [2.0, 1.3125, 2.0],
}


@pytest.mark.parametrize("name", BY_HAND)
def test_photons_by_hand(name, photons, xp_device):
    model = photons(device=xp_device.name)
    values = QuantityResolver(model).get(name)(xp_device.asarray(X, "float64"))
    np.testing.assert_allclose(to_numpy(values), [BY_HAND[name]], rtol=1e-12)


def test_constant_rbe_multiplies_the_dose(photons):
    resolver = QuantityResolver(photons(rbe=[1.1, 1.1, 1.0]))
    np.testing.assert_allclose(resolver.get("rbe_x_dose")(X), [[2.2, 1.65, 2.0]], rtol=1e-12)


def test_an_image_takes_the_place_of_what_would_be_calculated(photons):
    model = photons({"alpha_dose": np.asarray([[0.3, 0.0], [0.0, 0.0], [0.0, 0.0]])})
    resolver = QuantityResolver(model)
    assert resolver.get("alpha_dose").direct
    assert not resolver.get("sqrt_beta_dose").direct
    np.testing.assert_allclose(resolver.get("effect")(X)[0, 0], 0.6 + 0.05 * 4.0, rtol=1e-12)


def test_let_is_let_dose_over_dose_and_finite_without_dose(photons):
    resolver = QuantityResolver(photons({"let_dose": 2.5 * np.asarray([[1.0, 0.0], [0.5, 0.5], [0.0, 2.0]])}))
    np.testing.assert_allclose(resolver.get("let")(X), [[2.5, 2.5, 2.5]], rtol=1e-12)
    np.testing.assert_allclose(resolver.get("let")(0.0 * X), [[0.0, 0.0, 0.0]])
    np.testing.assert_allclose(resolver.get(LET(floor=4.0))(X), [[1.25, 0.9375, 1.25]], rtol=1e-12)


def test_let_x_dose_is_the_second_term_of_a_linear_rbe(photons):
    resolver = QuantityResolver(photons({"let_dose": 2.5 * np.asarray([[1.0, 0.0], [0.5, 0.5], [0.0, 2.0]])}))
    added = resolver.get("let_x_dose")(X)
    np.testing.assert_allclose(resolver.get("physical_dose")(X) + added, [[2.2, 1.65, 2.2]], rtol=1e-12)
    np.testing.assert_allclose(resolver.get(LETxDose(c=0.08))(X), 2.0 * added, rtol=1e-12)


def test_only_ratios_do_not_add_up():
    ratios = [name for name in QUANTITIES.names() if not QUANTITIES.get(name).additive]
    assert ratios == ["let", "let_all", "let_track", "let_track_protons", "primary_let", "rbe"]


def test_track_average_of_two_beams_is_by_fluence_and_below_the_dose_average(photons):
    """Tracks of 1 and 4 keV/um, three of the first for one of the second: LETt 7/4, LETd (3 + 16)/7 keV/um."""
    gray = 0.16021766208
    fluence = np.asarray([[3.0, 0.0], [3.0, 0.0], [0.0, 0.0]]), np.asarray([[0.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    dose = gray * (1.0 * fluence[0] + 4.0 * fluence[1])
    let_dose = gray * (1.0 * fluence[0] + 16.0 * fluence[1])
    images = {"primary_dose": dose, "primary_let_dose": let_dose, "primary_fluence": sum(fluence)}
    images |= {"proton_dose": 1.5 * dose, "proton_fluence": sum(fluence)}
    resolver = QuantityResolver(photons(images))
    weights = np.asarray([1.0, 1.0])
    np.testing.assert_allclose(resolver.get("let_track")(weights), [[7.0 / 4.0, 1.0, 0.0]], rtol=1e-12)
    np.testing.assert_allclose(resolver.get("let_track_protons")(weights), [[10.5 / 4.0, 1.5, 0.0]], rtol=1e-12)
    np.testing.assert_allclose(resolver.get("primary_let")(weights), [[19.0 / 7.0, 1.0, 0.0]], rtol=1e-12)


@pytest.mark.parametrize("name", ["let", "let_all", "primary_let", "let_track", "let_track_protons"])
def test_every_average_of_let_names_itself_when_its_floor_is_refused(name):
    with pytest.raises(InputError, match=f"floor of {name} must be a dose per fraction > 0 Gy, got 0"):
        QUANTITIES.get(name)(floor=0)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_options_out_of_range_are_refused(value):
    with pytest.raises(InputError, match=f"floor of let .* > 0 Gy, got {value}"):
        LET(floor=value)
    with pytest.raises(InputError, match=f"c of let_x_dose .* got {value}"):
        LETxDose(c=value)
