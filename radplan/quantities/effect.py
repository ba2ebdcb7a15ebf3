r"""The linear-quadratic effect, and the doses that are equivalent in it.

Symbols: :math:`\varepsilon` effect per fraction [1]; :math:`\alpha_x` [1/Gy], :math:`\beta_x` [1/Gy^2] radiosensitivity
to photons. All values have the shape ``(scenarios, voxels)``. The formulas stand in `radplan.biology.lq`.
"""

from __future__ import annotations

from dataclasses import dataclass

from radplan.arrays import Array, namespace
from radplan.biology import lq
from radplan.quantities.base import QUANTITIES, Quantity, Voxel


@QUANTITIES.register
@dataclass(frozen=True)
class Effect(Quantity):
    r"""Linear-quadratic effect, :math:`\varepsilon = \alpha D + (\sqrt\beta D)^2`, of one fraction.

    Source: Wilkens & Oelfke, Phys. Med. Biol. 51 (2006) 3127.

    >>> Effect().forward(0.2, 0.5)
    0.45
    """

    name = "effect"
    unit = "1"
    needs = ("alpha_dose", "sqrt_beta_dose")
    additive = True

    def forward(self, alpha_dose: Array, sqrt_beta_dose: Array) -> Array:
        return lq.effect(alpha_dose, sqrt_beta_dose)

    def vjp(self, cotangent: Array, alpha_dose: Array, sqrt_beta_dose: Array) -> tuple[Array, ...]:
        return cotangent, 2.0 * sqrt_beta_dose * cotangent


@QUANTITIES.register
@dataclass(frozen=True)
class RBExDose(Quantity):
    r"""Photon dose per fraction of the same effect.

    :math:`2\varepsilon/(\alpha_x+\sqrt{\alpha_x^2+4\beta_x\varepsilon})`, exact as :math:`\beta_x` goes to 0, where it
    is :math:`\varepsilon/\alpha_x`; 0 at zero effect. Derivative :math:`1/\sqrt{\alpha_x^2+4\beta_x\varepsilon}`.
    Source: Krämer & Scholz, Phys. Med. Biol. 45 (2000) 3319.

    Parameters
    ----------
    alpha_x : array of shape (1 or scenarios, voxels)
        Linear radiosensitivity to photons [1/Gy], >= 0.
    beta_x : array of shape (1 or scenarios, voxels)
        Quadratic radiosensitivity to photons [1/Gy^2], >= 0.

    >>> import numpy as np
    >>> RBExDose(0.1, 0.05).forward(np.asarray([[0.4]])).round(12).tolist()
    [[2.0]]
    """

    alpha_x: Voxel[Array] = None
    beta_x: Voxel[Array] = None

    name = "rbe_x_dose"
    unit = "Gy(RBE)"
    needs = ("effect",)
    additive = True
    title = "RBE-weighted dose"

    def forward(self, effect: Array) -> Array:
        return lq.dose_of_effect(effect, self.alpha_x, self.beta_x)

    def vjp(self, cotangent: Array, effect: Array) -> tuple[Array, ...]:
        return (cotangent * lq.dose_of_effect_slope(effect, self.alpha_x, self.beta_x),)

    @classmethod
    def examples(cls) -> list[RBExDose]:
        return [cls(0.1, 0.05), cls(0.1, 0.0), cls(((0.1, 0.5, 0.0, 0.2),), ((0.05, 0.05, 0.03, 0.0),))]


@QUANTITIES.register
@dataclass(frozen=True)
class BED(Quantity):
    r"""Biologically effective dose of one fraction, :math:`\varepsilon/\alpha_x`.

    Of photons it is :math:`d (1 + d/(\alpha/\beta))`. It is 0 where :math:`\alpha_x` is 0, because no
    tissue is declared there.
    Source: Fowler, Br. J. Radiol. 62 (1989) 679.

    Parameters
    ----------
    alpha_x : array of shape (1 or scenarios, voxels)
        Linear radiosensitivity to photons [1/Gy], >= 0.

    >>> import numpy as np
    >>> BED(np.asarray([[0.1]])).forward(np.asarray([[0.4]])).round(12).tolist()  # 2 Gy at alpha/beta 2: 2 (1 + 2/2)
    [[4.0]]
    """

    alpha_x: Voxel[Array] = None

    name = "bed"
    unit = "Gy"
    needs = ("effect",)
    additive = True

    def forward(self, effect: Array) -> Array:
        return _ratio(effect, self.alpha_x)

    def vjp(self, cotangent: Array, effect: Array) -> tuple[Array, ...]:
        return (_ratio(cotangent, self.alpha_x),)

    @classmethod
    def examples(cls) -> list[BED]:
        return [cls(0.1), cls(((0.1, 0.0, 0.3, 0.5),))]


@QUANTITIES.register
@dataclass(frozen=True)
class EQD2(Quantity):
    r"""Dose in 2 Gy photon fractions of the same effect as one fraction, :math:`\varepsilon / (\alpha_x + 2 \beta_x)`.

    This is BED divided by :math:`1 + 2/(\alpha/\beta)`, for :math:`\beta_x = 0` too. It is 0 where both
    radiosensitivities are 0, because no tissue is declared there.
    Source: Withers, Thames & Peters, Int. J. Radiat. Oncol. Biol. Phys. 9 (1983) 1611.

    Parameters
    ----------
    alpha_x : array of shape (1 or scenarios, voxels)
        Linear radiosensitivity to photons [1/Gy], >= 0.
    beta_x : array of shape (1 or scenarios, voxels)
        Quadratic radiosensitivity to photons [1/Gy^2], >= 0.

    >>> import numpy as np
    >>> EQD2(np.asarray([[0.1]]), np.asarray([[0.05]])).forward(np.asarray([[0.4]])).round(12).tolist()
    [[2.0]]
    """

    alpha_x: Voxel[Array] = None
    beta_x: Voxel[Array] = None

    name = "eqd2"
    unit = "Gy"
    needs = ("effect",)
    additive = True

    def forward(self, effect: Array) -> Array:
        return _ratio(effect, self.alpha_x + 2.0 * self.beta_x)

    def vjp(self, cotangent: Array, effect: Array) -> tuple[Array, ...]:
        return (_ratio(cotangent, self.alpha_x + 2.0 * self.beta_x),)

    @classmethod
    def examples(cls) -> list[EQD2]:
        return [cls(0.1, 0.05), cls(((0.1, 0.0, 0.3, 0.0),), ((0.05, 0.03, 0.0, 0.0),))]


def _ratio(values: Array, divisor: Array) -> Array:
    """Return ``values / divisor``, 0 where the divisor is 0."""
    xp = namespace(values)
    spread = divisor + xp.zeros_like(values)
    safe = xp.where(spread > 0.0, spread, xp.ones_like(spread))
    return xp.where(spread > 0.0, values / safe, xp.zeros_like(values))
