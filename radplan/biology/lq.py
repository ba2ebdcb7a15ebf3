r"""The linear-quadratic model: effect, and the doses that are equivalent in it.

A fraction of dose :math:`d` [Gy] leaves the fraction :math:`S` of cells alive, with

.. math:: \varepsilon = -\ln S = \alpha d + \beta d^2,

:math:`\alpha` [1/Gy] and :math:`\beta` [1/Gy^2] the radiosensitivity of the tissue to the radiation, and
:math:`\alpha_x, \beta_x` that to the reference photons. Arrays broadcast against each other; the usual shapes are
``(scenarios, voxels)`` for doses and ``(1 or scenarios, voxels)`` for radiosensitivities, which may also be numbers.

Sources: Fowler, Br. J. Radiol. 62 (1989) 679 (effect, BED); Wilkens & Oelfke, Phys. Med. Biol. 51 (2006) 3127 (effect
of mixed beams in optimisation).
"""

from __future__ import annotations

from radplan.arrays import Array, namespace, native_device


def effect(alpha_dose: Array, sqrt_beta_dose: Array) -> Array:
    r"""Return the effect of mixed radiation, :math:`\varepsilon = \alpha D + (\sqrt\beta D)^2`.

    Both products are sums over the beamlets that reach the voxel, which is how the model of Zaider and Rossi averages
    radiosensitivity. Source: Wilkens & Oelfke, Phys. Med. Biol. 51 (2006) 3127.

    Parameters
    ----------
    alpha_dose : array
        Sum of alpha times dose per fraction [1].
    sqrt_beta_dose : array
        Sum of the root of beta times dose per fraction [1].

    >>> effect(0.2, 0.5)
    0.45
    """
    return alpha_dose + sqrt_beta_dose * sqrt_beta_dose


def effect_of_dose(dose: Array, alpha: Array, beta: Array) -> Array:
    r"""Return the effect of one fraction, :math:`\varepsilon = \alpha d + \beta d^2`.

    Source: Fowler, Br. J. Radiol. 62 (1989) 679.

    Parameters
    ----------
    dose : array
        Dose per fraction [Gy].
    alpha : array
        Linear radiosensitivity [1/Gy].
    beta : array
        Quadratic radiosensitivity [1/Gy^2].

    >>> round(effect_of_dose(2.0, 0.1, 0.05), 12)
    0.4
    """
    return dose * (alpha + beta * dose)


def dose_of_effect(effect: Array, alpha: Array, beta: Array) -> Array:
    r"""Return the dose per fraction that has an effect [Gy].

    :math:`d = 2\varepsilon/(\alpha+\sqrt{\alpha^2+4\beta\varepsilon})` is the root of
    :math:`\beta d^2 + \alpha d = \varepsilon` without its cancellation: exact as :math:`\beta` goes to 0, where it is
    :math:`\varepsilon/\alpha`. It is 0 where the effect is 0, and where both radiosensitivities are 0, because no
    tissue is declared there (as in BED and EQD2).

    Parameters
    ----------
    effect : array
        Effect of one fraction [1], >= 0.
    alpha : array or number
        Linear radiosensitivity [1/Gy], >= 0.
    beta : array or number
        Quadratic radiosensitivity [1/Gy^2], >= 0.

    >>> import numpy as np
    >>> dose_of_effect(np.asarray([0.4]), 0.1, 0.05).round(12).tolist()  # 0.1 * 2 + 0.05 * 2^2 = 0.4
    [2.0]
    """
    xp = namespace(effect)
    divisor = alpha + xp.sqrt(alpha * alpha + 4.0 * beta * effect)
    return 2.0 * effect / _infinite_for_zero(divisor)


def dose_of_effect_slope(effect: Array, alpha: Array, beta: Array) -> Array:
    r"""Return the derivative of `dose_of_effect` by the effect, :math:`1/\sqrt{\alpha^2+4\beta\varepsilon}` [Gy].

    Where the root is 0 (no radiosensitivity, or :math:`\alpha = 0` at zero effect, a vertical tangent) it is 0, so that
    voxels without dose never stop an optimisation.

    Parameters
    ----------
    effect : array
        Effect of one fraction [1], >= 0.
    alpha : array or number
        Linear radiosensitivity [1/Gy], >= 0.
    beta : array or number
        Quadratic radiosensitivity [1/Gy^2], >= 0.

    >>> import numpy as np
    >>> dose_of_effect_slope(np.asarray([0.4]), 0.1, 0.05).round(6).tolist()  # 1 / (0.1 + 2 * 0.05 * 2)
    [3.333333]
    """
    xp = namespace(effect)
    return 1.0 / _infinite_for_zero(xp.sqrt(alpha * alpha + 4.0 * beta * effect))


def _infinite_for_zero(divisor: Array) -> Array:
    """Return a divisor by which everything finite is 0 where it is 0 itself; a NaN stays one."""
    xp = namespace(divisor)
    infinity = xp.asarray(float("inf"), dtype=divisor.dtype, device=native_device(divisor))
    return xp.where(divisor == 0.0, infinity, divisor)


def bed(dose: Array, alpha_beta: Array, fractions: int = 1) -> Array:
    r"""Return the biologically effective dose of a photon course, :math:`n d (1 + d/(\alpha/\beta))` [Gy].

    Source: Fowler, Br. J. Radiol. 62 (1989) 679.

    Parameters
    ----------
    dose : array or number
        Dose per fraction [Gy].
    alpha_beta : array or number
        Ratio of the radiosensitivities [Gy], > 0.
    fractions : int
        Number of fractions n.

    >>> bed(2.0, 10.0, 30)
    72.0
    """
    return fractions * dose * (1.0 + dose / alpha_beta)


def eqd2(dose: Array, alpha_beta: Array, fractions: int = 1) -> Array:
    r"""Return the dose that in 2 Gy fractions has the same BED, :math:`n d (d+\alpha/\beta)/(2+\alpha/\beta)` [Gy].

    Source: Withers, Thames & Peters, Int. J. Radiat. Oncol. Biol. Phys. 9 (1983) 1611.

    Parameters
    ----------
    dose : array or number
        Dose per fraction [Gy].
    alpha_beta : array or number
        Ratio of the radiosensitivities [Gy], > 0.
    fractions : int
        Number of fractions n.

    >>> eqd2(2.0, 3.0, 30)
    60.0
    """
    return fractions * dose * (dose + alpha_beta) / (2.0 + alpha_beta)
