"""What every machine states about itself, and what a photon pencil kernel offers an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from radplan.arrays import Array
from radplan.errors import InputError


@dataclass(frozen=True)
class Reference:
    """The condition in which a machine's monitor units are calibrated.

    Parameters
    ----------
    dose : float
        Dose to water per monitor unit at the reference point [Gy/MU].
    field : tuple of float
        Field width in x and y where `field_distance` says [mm].
    field_distance : float
        Distance from the source at which `field` is measured [mm].
    ssd : float
        Distance from the source to the water surface on the beam axis [mm].
    depth : float
        Depth of the reference point below the surface on the beam axis [mm].

    Raises
    ------
    InputError
        When a value is not positive.

    >>> Reference(dose=0.01, field=(100.0, 100.0), field_distance=1000.0, ssd=1000.0, depth=15.5).dose
    0.01
    """

    dose: float
    field: tuple[float, float]
    field_distance: float
    ssd: float
    depth: float

    def __post_init__(self) -> None:
        for name, value in (
            ("dose", self.dose),
            ("field", min(self.field)),
            ("field_distance", self.field_distance),
            ("ssd", self.ssd),
            ("depth", self.depth),
        ):
            if not value > 0:
                raise InputError(f"reference {name} must be > 0, got {value}")


class KernelBasis(Protocol):
    r"""A pencil kernel as a short sum of radial functions times depth weights.

    The dose of a unit bixel, in coordinates (x, y) of the isocentre plane, is
    :math:`D = (SAD/L)^2 \sum_k w_k(t, s) \, (g_k * \mathrm{fluence})(x, y)` with the radiological depth t, the distance
    from the source L and the stretch s = L/SAD. The calibration is inside the weights.
    """

    @property
    def rank(self) -> int:
        """Number of radial functions K."""
        ...

    @property
    def cutoff(self) -> float:
        """Radius in the isocentre plane beyond which all radial functions are zero [mm]."""
        ...

    def weights(self, depth: Array, stretch: Array) -> Array:
        """Return the depth weights.

        Parameters
        ----------
        depth : array of shape (n,)
            Radiological depth [mm water].
        stretch : array of shape (n,)
            Distance from the source over SAD [1].

        Returns
        -------
        array of shape (K, n)
            In the namespace, device and dtype of `depth`.
        """
        ...

    def raster(self, pitch: float, half_width: float) -> Array:
        """Return the radial functions integrated over square pixels centred at multiples of the pitch.

        Parameters
        ----------
        pitch : float
            Side of a pixel in the isocentre plane [mm].
        half_width : float
            The outermost pixel centre is at the first multiple of the pitch not below this [mm].

        Returns
        -------
        numpy array of shape (K, 2 m + 1, 2 m + 1), m = ceil(half_width / pitch)
            Its sum over a region is the integral of the functions over that region.
        """
        ...


class PencilKernel(Protocol):
    """A machine's pencil kernel: one basis, or one for each distance of the surface."""

    def basis(self, ssd: float) -> KernelBasis:
        """Return the basis to use for a beam.

        Parameters
        ----------
        ssd : float
            Distance from the source to the surface on the beam axis [mm].
        """
        ...
