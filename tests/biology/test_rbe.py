"""What every RBE model must do on every array backend, and the errors that say what to do."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.arrays import to_numpy
from radplan.biology.rbe import RBE_MODELS, ConstantRBE, RadiationQuality, Tabulated, rbe
from radplan.errors import InputError, UnknownNameError

LET = [0.0, 0.1, 2.0, 12.0, 150.0]
TISSUES = [(0.1, 0.05), (0.5, 0.05), (0.1, 0.0), (0.0, 0.0)]


def quality(target=None, **tables):
    made = {"let": LET, "alpha": [0.1] * 5, "beta": [0.05] * 5} | tables
    as_array = np.asarray if target is None else (lambda v: target.asarray(v, "float64"))
    return RadiationQuality(**{name: as_array(values) for name, values in made.items()})


def models():
    return [model for cls in RBE_MODELS for model in cls.examples()]


@pytest.mark.parametrize("model", models(), ids=lambda m: m.name)
def test_backends_agree_and_values_are_finite(model, xp_device):
    for tissue in TISSUES:
        expected = model.alpha_beta(quality(), *tissue)
        for found, value in zip(model.alpha_beta(quality(xp_device), *tissue), expected, strict=True):
            host = np.asarray(found) if isinstance(found, float) else to_numpy(found)
            np.testing.assert_allclose(host, value, rtol=1e-12)
            assert np.all(np.isfinite(host))
            assert np.all(host >= 0.0)


@pytest.mark.parametrize("model", models(), ids=lambda m: m.name)
def test_low_let_is_like_photons(model):
    alpha, beta = model.alpha_beta(quality(let=[0.5] * 5), 0.1, 0.05)
    assert np.all(np.abs(np.asarray(alpha) / 0.1 - 1) < 0.25)
    assert np.all(np.abs(np.asarray(beta) / 0.05 - 1) < 0.25)


def test_rbe_solves_the_isoeffect(xp_device):
    dose = xp_device.asarray([1e-6, 0.5, 2.0, 8.0], "float64")
    found = to_numpy(rbe(dose, 0.3, 0.06, 0.1, 0.05)) * to_numpy(dose)
    np.testing.assert_allclose(0.1 * found + 0.05 * found**2, 0.3 * to_numpy(dose) + 0.06 * to_numpy(dose) ** 2)


def test_unknown_names_and_missing_tables_say_what_to_do():
    with pytest.raises(UnknownNameError, match="wedenberg"):
        RBE_MODELS.get("wedenburg")
    with pytest.raises(InputError, match="needs LET"):
        RBE_MODELS.get("wedenberg")().alpha_beta(RadiationQuality(), 0.1, 0.05)
    with pytest.raises(InputError, match="alpha and beta"):
        Tabulated().alpha_beta(RadiationQuality(), 0.1, 0.05)
    with pytest.raises(InputError, match="must be > 0"):
        ConstantRBE(0.0)
