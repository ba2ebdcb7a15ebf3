r"""RBE models: linear-quadratic parameters of ions from their LET or from a machine's tables.

Symbols: :math:`L` dose-averaged LET [keV/um] of one beamlet; :math:`\alpha_x` [1/Gy], :math:`\beta_x` [1/Gy^2]
radiosensitivity to photons, :math:`r = \alpha_x/\beta_x` [Gy]. A model with :math:`RBE_{max}` and :math:`RBE_{min}`,
the RBE at doses near 0 and very high, has :math:`\alpha = RBE_{max} \alpha_x` and
:math:`\beta = RBE_{min}^2 \beta_x`. The products are formed without r where possible, so that they hold for
:math:`\beta_x = 0` too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from radplan.arrays import Array, namespace
from radplan.errors import InputError
from radplan.registry import Registry

PROTONS = ("protons",)
IONS = ("protons", "helium", "carbon")


@dataclass(frozen=True, eq=False)
class RadiationQuality:
    """What a machine's tables say about the radiation at some depths of one energy.

    Parameters
    ----------
    let : array of shape (n,), optional
        Dose-averaged LET [keV/um].
    alpha, beta : array of shape (n,), optional
        Tabulated linear-quadratic parameters for the tissue in question [1/Gy, 1/Gy^2].

    >>> RadiationQuality().let is None
    True
    """

    let: Array | None = None
    alpha: Array | None = None
    beta: Array | None = None


class RBEModel(ABC):
    """How ions act on a tissue whose response to photons is known.

    A concrete model is a frozen dataclass whose fields are its coefficients, and joins by ``@RBE_MODELS.register`` or
    the entry-point group ``radplan.rbe_model``.

    Attributes
    ----------
    name : str
        What users write.
    needs : "nothing", "let" or "tables"
        What it reads of a machine: nothing (a constant RBE), LET, or alpha and beta tabulated for the tissue.
    radiation : tuple of str
        What it was made for.

    >>> RBE_MODELS.get("wedenberg").needs
    'let'
    """

    name: ClassVar[str]
    needs: ClassVar[Literal["nothing", "let", "tables"]]
    radiation: ClassVar[tuple[str, ...]]

    @abstractmethod
    def alpha_beta(self, quality: RadiationQuality, alpha_x: float, beta_x: float) -> tuple[Array, Array]:
        """Return alpha [1/Gy] and beta [1/Gy^2] for a tissue, of the shape of the tables ``(n,)`` or numbers.

        Parameters
        ----------
        quality : RadiationQuality
            With the tables that `needs` names.
        alpha_x, beta_x : float
            Radiosensitivity of the tissue to photons [1/Gy, 1/Gy^2], >= 0.
        """

    @classmethod
    def examples(cls) -> list[Self]:
        """Return instances for the conformance tests, the default among them."""
        return [cls()]


RBE_MODELS: Registry[RBEModel] = Registry("RBE model", RBEModel)  # type: ignore[type-abstract]
"""All RBE models by name."""


def rbe(dose: Array, alpha: Array, beta: Array, alpha_x: Array, beta_x: Array) -> Array:
    r"""Return the RBE at a dose of ions: photon dose of the same effect over dose of ions.

    :math:`2(\alpha+\beta d) / (\alpha_x + \sqrt{\alpha_x^2 + 4 \beta_x d (\alpha + \beta d)})`, which is
    :math:`\alpha/\alpha_x` as d goes to 0. Source: Carabe-Fernandez, Dale & Jones, Int. J. Radiat. Biol. 83 (2007) 27.

    Parameters
    ----------
    dose : array
        Physical dose of ions per fraction [Gy].
    alpha, beta : array
        Radiosensitivity to the ions [1/Gy, 1/Gy^2].
    alpha_x, beta_x : array or number
        Radiosensitivity to photons [1/Gy, 1/Gy^2].

    >>> import numpy as np
    >>> rbe(np.asarray([2.0]), 0.1, 0.05, 0.1, 0.05).tolist()
    [1.0]
    """
    slope = alpha + beta * dose
    return 2.0 * slope / (alpha_x + namespace(dose).sqrt(alpha_x * alpha_x + 4.0 * beta_x * dose * slope))


def let_of(quality: RadiationQuality) -> Array:
    """Return the LET of a radiation, or raise `InputError` where the machine tabulates none."""
    if quality.let is None:
        raise InputError(
            "this RBE model needs LET, and the machine does not tabulate it: choose another machine or model"
        )
    return quality.let


@RBE_MODELS.register
@dataclass(frozen=True)
class ConstantRBE(RBEModel):
    r"""The same RBE everywhere, :math:`\alpha = R \alpha_x`, :math:`\beta = R^2 \beta_x`.

    Source: Paganetti et al., Int. J. Radiat. Oncol. Biol. Phys. 53 (2002) 407: 1.1 for protons.

    Parameters
    ----------
    value : float
        The RBE R [1], > 0.

    Raises
    ------
    InputError
        When the value is not > 0.

    >>> [round(value, 6) for value in ConstantRBE().alpha_beta(RadiationQuality(), 0.1, 0.05)]
    [0.11, 0.0605]
    """

    value: float = 1.1

    name = "constant"
    needs = "nothing"
    radiation = IONS

    def __post_init__(self) -> None:
        if not self.value > 0.0:
            raise InputError(f"a constant RBE must be > 0, got {self.value}")

    def alpha_beta(self, quality: RadiationQuality, alpha_x: float, beta_x: float) -> tuple[Array, Array]:
        return self.value * alpha_x, self.value**2 * beta_x


@RBE_MODELS.register
@dataclass(frozen=True)
class McNamara(RBEModel):
    r"""Protons: :math:`RBE_{max} = p_0 + p_1 L/r`, :math:`RBE_{min} = p_2 + p_3 \sqrt{r} L`.

    Source: McNamara, Schuemann & Paganetti, Phys. Med. Biol. 60 (2015) 8399.

    Parameters
    ----------
    p0, p1, p2, p3 : float
        Coefficients [1, Gy um/keV, 1, um/(keV sqrt(Gy))]. matRad writes 0.999064 for p0, the paper 0.99064.

    >>> import numpy as np
    >>> alpha, _ = McNamara().alpha_beta(RadiationQuality(np.asarray([2.0])), 0.1, 0.05)  # 0.099064 + 0.035605
    >>> alpha.round(6).tolist()
    [0.134669]
    """

    p0: float = 0.99064
    p1: float = 0.35605
    p2: float = 1.1012
    p3: float = -0.0038703

    name = "mcnamara"
    needs = "let"
    radiation = PROTONS

    def alpha_beta(self, quality: RadiationQuality, alpha_x: float, beta_x: float) -> tuple[Array, Array]:
        let = let_of(quality)
        root = self.p2 * beta_x**0.5 + self.p3 * alpha_x**0.5 * let
        return self.p0 * alpha_x + self.p1 * beta_x * let, _not_negative(root) ** 2


@RBE_MODELS.register
@dataclass(frozen=True)
class Wedenberg(RBEModel):
    r"""Protons: :math:`RBE_{max} = 1 + q L/r`, :math:`RBE_{min} = 1`.

    Source: Wedenberg, Lind & Hårdemark, Acta Oncol. 52 (2013) 580.

    Parameters
    ----------
    q : float
        Slope [Gy um/keV].

    >>> import numpy as np
    >>> alpha, _ = Wedenberg().alpha_beta(RadiationQuality(np.asarray([2.0])), 0.1, 0.05)  # 0.1 + 0.434 * 2 * 0.05
    >>> alpha.round(6).tolist()
    [0.1434]
    """

    q: float = 0.434

    name = "wedenberg"
    needs = "let"
    radiation = PROTONS

    def alpha_beta(self, quality: RadiationQuality, alpha_x: float, beta_x: float) -> tuple[Array, Array]:
        let = let_of(quality)
        return alpha_x + self.q * beta_x * let, _filled(let, beta_x)


@RBE_MODELS.register
@dataclass(frozen=True)
class Carabe(RBEModel):
    r"""Protons: :math:`RBE_{max} = 0.843 + 0.154 c L/r`, :math:`RBE_{min} = 1.09 + 0.006 c L/r`, :math:`c = 2.686` Gy.

    Source: Carabe, Moteabbed, Depauw, Schuemann & Paganetti, Phys. Med. Biol. 57 (2012) 1159; c is the alpha/beta of
    the cells that the slopes were fitted to.

    Parameters
    ----------
    c : float
        That alpha/beta [Gy].

    >>> import numpy as np
    >>> alpha, _ = Carabe().alpha_beta(RadiationQuality(np.asarray([2.0])), 0.1, 0.05)  # 0.0843 + 0.154 * 2.686 * 0.1
    >>> alpha.round(6).tolist()
    [0.125664]
    """

    c: float = 2.686

    name = "carabe"
    needs = "let"
    radiation = PROTONS

    def alpha_beta(self, quality: RadiationQuality, alpha_x: float, beta_x: float) -> tuple[Array, Array]:
        let = let_of(quality)
        slope = 0.006 * self.c * (beta_x**1.5 / alpha_x if alpha_x > 0.0 else 0.0)
        root = 1.09 * beta_x**0.5 + slope * let
        return 0.843 * alpha_x + 0.154 * self.c * beta_x * let, _not_negative(root) ** 2


@RBE_MODELS.register
@dataclass(frozen=True)
class ChenAhmad(RBEModel):
    r"""Protons: :math:`\alpha = \alpha_x + (1 - e^{-\lambda_1 L^2}) / (\lambda_2 L)`, :math:`\beta = \beta_x`.

    The added term does not know the tissue: it was fitted to V79 cells.
    Source: Chen & Ahmad, Radiat. Prot. Dosim. 150 (2012) 316.

    Parameters
    ----------
    l1, l2 : float
        Coefficients [(um/keV)^2, Gy um/keV].

    >>> import numpy as np
    >>> alpha, _ = ChenAhmad().alpha_beta(RadiationQuality(np.asarray([0.0, 10.0])), 0.1, 0.05)  # 0.121905 / 0.45
    >>> alpha.round(4).tolist()
    [0.1, 0.3709]
    """

    l1: float = 0.0013
    l2: float = 0.045

    name = "chen_ahmad"
    needs = "let"
    radiation = PROTONS

    def alpha_beta(self, quality: RadiationQuality, alpha_x: float, beta_x: float) -> tuple[Array, Array]:
        let = let_of(quality)
        xp = namespace(let)
        above = xp.where(let > 0.0, let, xp.ones_like(let))
        added = -xp.expm1(-self.l1 * above * above) / (self.l2 * above)
        return alpha_x + xp.where(let > 0.0, added, xp.zeros_like(let)), _filled(let, beta_x)


@RBE_MODELS.register
@dataclass(frozen=True)
class LinearScaling(RBEModel):
    r"""Protons: :math:`\alpha = \alpha_x + \lambda (L' - L_0)` with L clipped to :math:`L'`, :math:`\beta = \beta_x`.

    Source: Unkelbach et al., Int. J. Radiat. Oncol. Biol. Phys. 96 (2016) 1097 (alpha linear in LET); coefficients and
    limits as matRad's ``LSM``, which does not apply the limits it states.

    Parameters
    ----------
    slope : float
        lambda [um/(keV Gy)].
    reference : float
        LET at which alpha is that of photons [keV/um].
    lowest, highest : float
        Limits of LET [keV/um].

    >>> import numpy as np
    >>> alpha, _ = LinearScaling().alpha_beta(RadiationQuality(np.asarray([10.5, 99.0])), 0.1, 0.05)
    >>> alpha.round(6).tolist()
    [0.18, 0.336]
    """

    slope: float = 0.008
    reference: float = 0.5
    lowest: float = 0.3
    highest: float = 30.0

    name = "linear_scaling"
    needs = "let"
    radiation = PROTONS

    def alpha_beta(self, quality: RadiationQuality, alpha_x: float, beta_x: float) -> tuple[Array, Array]:
        let = let_of(quality)
        xp = namespace(let)
        clipped = xp.minimum(xp.maximum(let, xp.full_like(let, self.lowest)), xp.full_like(let, self.highest))
        return _not_negative(alpha_x + self.slope * (clipped - self.reference)), _filled(let, beta_x)


@RBE_MODELS.register
@dataclass(frozen=True)
class Mairani(RBEModel):
    r"""Helium: :math:`RBE_{max} = 1 + (h_0 + 1/r) f`, :math:`f = h_1 L^2 e^{-h_2 L}`, :math:`RBE_{min} = 1`.

    Source: Mairani et al., Phys. Med. Biol. 61 (2016) 888, quadratic-exponential form.

    Parameters
    ----------
    h0, h1, h2 : float
        Coefficients [1/Gy, Gy (um/keV)^2, um/keV].

    >>> import numpy as np
    >>> alpha, _ = Mairani().alpha_beta(RadiationQuality(np.asarray([10.0])), 0.1, 0.05)
    >>> alpha.round(5).tolist()
    [0.15324]
    """

    h0: float = 0.136938
    h1: float = 0.00973154
    h2: float = 0.0151998

    name = "mairani"
    needs = "let"
    radiation = ("helium",)

    def alpha_beta(self, quality: RadiationQuality, alpha_x: float, beta_x: float) -> tuple[Array, Array]:
        let = let_of(quality)
        f = self.h1 * let * let * namespace(let).exp(-self.h2 * let)
        return alpha_x + (self.h0 * alpha_x + beta_x) * f, _filled(let, beta_x)


@RBE_MODELS.register
@dataclass(frozen=True)
class Tabulated(RBEModel):
    """Alpha and beta as the machine tabulates them for the tissue: LEM or MKM, whichever its tables were made with.

    Sources: Scholz, Kellerer, Kraft-Weyrather & Kraft, Radiat. Environ. Biophys. 36 (1997) 59 (LEM); Hawkins, Int. J.
    Radiat. Biol. 66 (1994) 739 (MKM).

    >>> import numpy as np
    >>> quality = RadiationQuality(alpha=np.asarray([0.8]), beta=np.asarray([0.05]))
    >>> [float(v[0]) for v in Tabulated().alpha_beta(quality, 0.1, 0.05)]
    [0.8, 0.05]
    """

    name = "tabulated"
    needs = "tables"
    radiation = IONS

    def alpha_beta(self, quality: RadiationQuality, alpha_x: float, beta_x: float) -> tuple[Array, Array]:
        if quality.alpha is None or quality.beta is None:
            raise InputError(
                "tabulated biology needs alpha and beta in the machine's tables, which has none: choose a model of LET"
            )
        return quality.alpha, quality.beta


def _not_negative(values: Array) -> Array:
    return namespace(values).where(values > 0.0, values, namespace(values).zeros_like(values))


def _filled(like: Array, value: float) -> Array:
    return namespace(like).full_like(like, value)
