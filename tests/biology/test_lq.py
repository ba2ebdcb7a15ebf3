"""The linear-quadratic model against numbers of the literature and its own closed forms, on every backend."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.arrays import to_numpy
from radplan.biology import lq


# By hand from n d (1 + d / (alpha/beta)), Fowler, Br. J. Radiol. 62 (1989) 679; the first two are its stock examples.
@pytest.mark.parametrize(
    ("fractions", "dose", "alpha_beta", "bed"),
    [(30, 2.0, 10.0, 72.0), (30, 2.0, 3.0, 100.0), (20, 2.75, 10.0, 70.125), (5, 7.25, 1.5, 211.4583333)],
)
def test_bed_of_known_courses(fractions, dose, alpha_beta, bed):
    assert lq.bed(dose, alpha_beta, fractions) == pytest.approx(bed, rel=1e-9)


# By hand from n d (d + alpha/beta) / (2 + alpha/beta): two hypofractionated courses and the identity at 2 Gy.
@pytest.mark.parametrize(
    ("fractions", "dose", "alpha_beta", "eqd2"),
    [(20, 2.75, 10.0, 58.4375), (20, 2.75, 3.0, 63.25), (5, 7.25, 1.5, 90.625), (30, 2.0, 3.0, 60.0)],
)
def test_eqd2_of_known_courses(fractions, dose, alpha_beta, eqd2):
    assert lq.eqd2(dose, alpha_beta, fractions) == pytest.approx(eqd2, rel=1e-9)


def test_dose_of_effect_undoes_effect_of_dose(xp_device):
    dose = xp_device.asarray([[0.0, 1e-6, 0.5, 2.0, 20.0]], "float64")
    for alpha, beta in ((0.1, 0.05), (0.3, 0.0), (0.0, 0.05), (1e-9, 0.05), (0.1, 1e-12)):
        back = lq.dose_of_effect(lq.effect_of_dose(dose, alpha, beta), alpha, beta)
        np.testing.assert_allclose(to_numpy(back), to_numpy(dose), rtol=1e-9)


def test_dose_of_effect_is_exact_where_the_textbook_root_cancels():
    effect = np.asarray([1e-6], dtype="float32")
    textbook = (np.sqrt(np.float32(0.25) + 4 * np.float32(1e-4) * effect) - np.float32(0.5)) / np.float32(2e-4)
    assert textbook[0] == 0.0
    assert lq.dose_of_effect(effect, 0.5, 1e-4)[0] == pytest.approx(2e-6, rel=1e-5)


def test_slope_is_the_reciprocal_of_the_effects_slope(xp_device):
    dose = xp_device.asarray([[0.0, 0.5, 2.0]], "float64")
    slope = lq.dose_of_effect_slope(lq.effect_of_dose(dose, 0.1, 0.05), 0.1, 0.05)
    np.testing.assert_allclose(to_numpy(slope), 1.0 / (0.1 + 2 * 0.05 * to_numpy(dose)), rtol=1e-12)


def test_nothing_radiosensitive_gives_zero_and_not_nan(xp_device):
    effect = xp_device.asarray([[0.0]], "float64")
    assert to_numpy(lq.dose_of_effect(effect, 0.0, 0.0)).tolist() == [[0.0]]
    assert to_numpy(lq.dose_of_effect_slope(effect, 0.0, 0.05)).tolist() == [[0.0]]


def test_value_and_slope_agree_where_no_tissue_is_declared():
    effect, zero = np.asarray([0.0, 0.4, 3.0]), np.zeros(3)
    assert lq.dose_of_effect(effect, zero, zero).tolist() == [0.0, 0.0, 0.0]
    assert lq.dose_of_effect_slope(effect, zero, zero).tolist() == [0.0, 0.0, 0.0]
