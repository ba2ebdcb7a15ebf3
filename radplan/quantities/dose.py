r"""Doses: the physical dose, and what constant-RBE biology makes of it.

Symbols: :math:`d` physical dose per fraction [Gy]; :math:`\alpha_x` [1/Gy], :math:`\beta_x` [1/Gy^2] radiosensitivity
to photons. All values have the shape ``(scenarios, voxels)``.
"""

from __future__ import annotations

from dataclasses import dataclass

from radplan.arrays import Array
from radplan.quantities.base import QUANTITIES, Quantity, Voxel


@QUANTITIES.register
@dataclass(frozen=True)
class PhysicalDose(Quantity):
    """Absorbed dose to water per fraction, an image that every model gives.

    Source: ICRU Report 85 (2011), absorbed dose.

    >>> PhysicalDose().forward(2.0)
    2.0
    """

    name = "physical_dose"
    unit = "Gy"
    needs = ("physical_dose",)
    additive = True

    def forward(self, physical_dose: Array) -> Array:
        return physical_dose

    def vjp(self, cotangent: Array, physical_dose: Array) -> tuple[Array, ...]:
        return (cotangent,)


@QUANTITIES.register
@dataclass(frozen=True)
class AlphaDose(Quantity):
    r"""Sum of alpha times dose: the model's image if it has one, otherwise :math:`\mathrm{RBE}\,\alpha_x d`.

    Source: Wilkens & Oelfke, Phys. Med. Biol. 51 (2006) 3127; the second form is the same for a constant RBE.

    Parameters
    ----------
    rbe : array of shape (1 or scenarios, voxels)
        Constant RBE [1]: 1 for photons; absent in models of ions without biology.
    alpha_x : array of shape (1 or scenarios, voxels)
        Linear radiosensitivity to photons [1/Gy].

    >>> AlphaDose(rbe=1.0, alpha_x=0.25).forward(2.0)
    0.5
    """

    rbe: Voxel[Array] = None
    alpha_x: Voxel[Array] = None

    name = "alpha_dose"
    unit = "1"
    needs = ("physical_dose",)
    additive = True

    def forward(self, physical_dose: Array) -> Array:
        return self.rbe * self.alpha_x * physical_dose

    def vjp(self, cotangent: Array, physical_dose: Array) -> tuple[Array, ...]:
        return (self.rbe * self.alpha_x * cotangent,)

    @classmethod
    def examples(cls) -> list[AlphaDose]:
        return [cls(rbe=1.0, alpha_x=0.1), cls(rbe=1.1, alpha_x=((0.1, 0.0, 0.3, 0.5),))]


@QUANTITIES.register
@dataclass(frozen=True)
class SqrtBetaDose(Quantity):
    r"""Sum of root beta times dose: the model's image if it has one, otherwise :math:`\mathrm{RBE}\sqrt{\beta_x} d`.

    Source: Wilkens & Oelfke, Phys. Med. Biol. 51 (2006) 3127; the second form is the same for a constant RBE.

    Parameters
    ----------
    rbe : array of shape (1 or scenarios, voxels)
        Constant RBE [1]: 1 for photons; absent in models of ions without biology.
    beta_x : array of shape (1 or scenarios, voxels)
        Quadratic radiosensitivity to photons [1/Gy^2].

    >>> SqrtBetaDose(rbe=1.0, beta_x=0.25).forward(2.0)
    1.0
    """

    rbe: Voxel[Array] = None
    beta_x: Voxel[Array] = None

    name = "sqrt_beta_dose"
    unit = "1"
    needs = ("physical_dose",)
    additive = True

    def forward(self, physical_dose: Array) -> Array:
        return self.rbe * self.beta_x**0.5 * physical_dose

    def vjp(self, cotangent: Array, physical_dose: Array) -> tuple[Array, ...]:
        return (self.rbe * self.beta_x**0.5 * cotangent,)

    @classmethod
    def examples(cls) -> list[SqrtBetaDose]:
        return [cls(rbe=1.0, beta_x=0.05), cls(rbe=1.1, beta_x=((0.05, 0.0, 0.02, 0.01),))]
