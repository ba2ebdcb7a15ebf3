"""RBE models against matRad's (run in Octave: alpha and beta against LET) and against worked numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.io import loadmat

from radplan.biology.rbe import RBE_MODELS, LinearScaling, Mairani, McNamara, RadiationQuality, rbe

MATRAD = {
    "MCN": McNamara(p0=0.999064),  # its typo of 0.99064
    "WED": RBE_MODELS.get("wedenberg")(),
    "CAR": RBE_MODELS.get("carabe")(),
    "HEL": Mairani(),
    "LSM": LinearScaling(),
}


@pytest.mark.parametrize("name", MATRAD)
def test_alpha_and_beta_against_let(shared, name):
    """Linear scaling within its limits of LET only: matRad states them and does not apply them."""
    bio = loadmat(shared("oracle/unit_oracles.mat"), squeeze_me=True, struct_as_record=False)["out"].bio
    let = bio.LET.astype(np.float64)
    valid = (let >= 0.3) & (let <= 30.0) if name == "LSM" else np.ones(let.size, dtype=bool)
    theirs = vars(bio)[name]
    for tissue, (alpha_x, beta_x) in enumerate(zip(bio.alphaX, bio.betaX, strict=True)):
        alpha, beta = MATRAD[name].alpha_beta(RadiationQuality(let), float(alpha_x), float(beta_x))
        np.testing.assert_allclose(alpha[valid], theirs.alpha[valid, tissue], rtol=1e-6)
        np.testing.assert_allclose(beta[valid], theirs.beta[valid, tissue], rtol=1e-6)


# alpha/beta [Gy], LET [keV/um], RBE at 2 Gy of McNamara, Wedenberg and Carabe: worked out from the publications'
# formulas, the isoeffect found by bisection
WORKED = [
    (2.0, 1.0, 1.1184, 1.0707, 1.0829),
    (2.0, 2.5, 1.1936, 1.1711, 1.1860),
    (2.0, 5.0, 1.3121, 1.3262, 1.3452),
    (2.0, 10.0, 1.5288, 1.6024, 1.6287),
    (3.0, 2.5, 1.1656, 1.1487, 1.1372),
    (10.0, 2.5, 1.0769, 1.0767, 0.9898),
    (10.0, 10.0, 1.2338, 1.2974, 1.2090),
]
HELIUM = [(2.0, 4.0, 1.0933, 1.0308), (2.0, 10.0, 1.5324, 1.1681), (2.0, 30.0, 4.5358, 1.9054),
          (10.0, 10.0, 1.1981, 1.1387), (10.0, 30.0, 2.3153, 1.8389)]  # fmt: skip


def at(model, ratio, let, dose):
    tissue = (0.1, 0.1 / ratio)
    alpha, beta = model.alpha_beta(RadiationQuality(np.asarray([let])), *tissue)
    return float(rbe(np.asarray([dose]), alpha, beta, *tissue)[0])


@pytest.mark.parametrize("row", WORKED)
def test_worked_numbers_of_protons(row):
    ratio, let, *expected = row
    for name, value in zip(("mcnamara", "wedenberg", "carabe"), expected, strict=True):
        assert at(RBE_MODELS.get(name)(), ratio, let, 2.0) == pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize("row", HELIUM)
def test_worked_numbers_of_helium(row):
    ratio, let, largest, at_two = row
    assert at(Mairani(), ratio, let, 1e-9) == pytest.approx(largest, abs=1e-4)
    assert at(Mairani(), ratio, let, 2.0) == pytest.approx(at_two, abs=1e-4)
