"""Make the photon machines that radplan ships: ``python -m radplan.machines.generate.photon [name ...]``.

A machine is one line of `MODELS`. Its kernel is Nyholm's at that beam quality, seen in the isocentre plane at every
depth and distance, and compressed by a singular value decomposition of the *cumulated* kernel: the dose of a round
field is what must be right, and the cumulated kernel has no singularity. Electrons from the head, which that kernel
does not know, are one more radial function.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from math import erf, sqrt
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.optimize import minimize_scalar

from radplan.arrays import Array
from radplan.errors import InputError, UnknownNameError
from radplan.machines.base import Reference
from radplan.machines.collimation import Collimation
from radplan.machines.files import write_photon_machine
from radplan.machines.generate.simulated_kernel import KERNEL_SOURCES, KERNELS, Kernel
from radplan.machines.head import Head
from radplan.machines.low_rank import LowRankKernel
from radplan.machines.photon import PhotonMachine

SAD = 1000.0
RADIUS = np.concatenate([[0.0], np.geomspace(0.05, 400.0, 160)])
DEPTH = np.linspace(np.sqrt(0.5), np.sqrt(400.0), 320) ** 2
STRETCH = np.linspace(0.15, 1.5, 55)


@dataclass(frozen=True)
class Contamination:
    r"""Dose of electrons from the head, :math:`A \, e^{-(z/R)^2}` times what the aperture lets through of a Gaussian.

    Parameters
    ----------
    amount : float
        A: dose on the axis of a flat 10x10 at SSD 100 cm, extrapolated to the surface, over the photons' maximum [1].
    depth : float
        R: depth at which it has fallen to 1/e [mm].
    sigma : float
        Standard deviation of its radial function in the isocentre plane [mm].
    source : str
        Where the numbers come from.

    Source: Ahnesjö and Andreo, Phys. Med. Biol. 34 (1989) 1451 for the product of a Gaussian and a depth function.

    >>> round(Contamination(0.1, 7.0, 60.0, "").share(50.0), 3)
    0.354
    """

    amount: float
    depth: float
    sigma: float
    source: str

    def share(self, half_side: float) -> float:
        """Return what a square field of half a side [mm] lets through of the radial function on the axis."""
        return erf(half_side / (sqrt(2.0) * self.sigma)) ** 2

    def cumulated(self, radius: Array) -> Array:
        """Return the integral of the normalised radial function over disks of radii [mm]."""
        return -np.expm1(-0.5 * (radius / self.sigma) ** 2)

    def slope(self, radius: Array) -> Array:
        """Return the derivative of `cumulated` with respect to the radius [1/mm]."""
        return radius / self.sigma**2 * np.exp(-0.5 * (radius / self.sigma) ** 2)

    def weight(self, depth: Array) -> Array:
        """Return the depth weight of the normalised radial function, over the photons' maximum; none far below."""
        fall = np.exp(-((depth / self.depth) ** 2))
        return self.amount / self.share(50.0) * np.where(fall < 1e-6, 0.0, fall)


@dataclass(frozen=True)
class PhotonModel:
    """The few numbers that a generic photon machine is made from.

    Parameters
    ----------
    name : str
        Name of the machine and of its file.
    energy : float
        Nominal accelerating potential [MV].
    quality : float
        Nyholm's TPR20,10.
    source_fwhm : float
        Blur of field edges in the isocentre plane [mm].
    horn, horn_radius : float
        Off-axis fluence 1 + horn (1 - exp(-(r / horn_radius)^2)) [1, mm].
    contamination : Contamination
        Electrons that come with the photons.
    head : Head
        Head scatter and monitor back-scatter.
    rank : int
        Number of radial functions kept of the photon kernel.
    dose_per_mu : float
        Calibration at 10x10 at the surface, SSD 100 cm, depth of maximum [Gy/MU].
    off_axis : tuple of (float, float)
        Radii [mm] > 0 and fluence there; where given, smooth between them and constant beyond, in place of the horn.
    collimation : Collimation
        What was measured of jaws and leaves.
    kernel : "nyholm" or "simulated"
        The pencil kernel: Nyholm's, or Nyholm's with the lateral spread of scatter by Monte Carlo.
    """

    name: str
    energy: float
    quality: float
    source_fwhm: float
    horn: float
    horn_radius: float
    contamination: Contamination
    head: Head
    rank: int = 6
    dose_per_mu: float = 0.01
    off_axis: tuple[tuple[float, float], ...] = ()
    collimation: Collimation = field(default_factory=Collimation)
    kernel: Literal["nyholm", "simulated"] = "nyholm"

    def profile(self, radius: Array) -> Array:
        """Return the relative in-air fluence at radii [mm]."""
        if not self.off_axis:
            return 1 + self.horn * -np.expm1(-((radius / self.horn_radius) ** 2))
        nodes, values = np.asarray([(0.0, 1.0), *self.off_axis]).T
        return PchipInterpolator(nodes, values)(np.minimum(radius, nodes[-1]))


_TRUEBEAM = "Varian's representative beam data of the TrueBeam"
_NODES = (
    f"nodes from the diagonal of the 40x40 at the depth of maximum in {_TRUEBEAM}, freed of scatter by this model; "
    "quality and head scatter from its depth doses and output factors"
)
_HORN = "1 + horn (1 - exp(-(r/horn_radius)^2)), with head scatter, chosen beside measured 6 MV profiles"
_TANK = (
    "amount and depth fitted to a measured 6 MV depth dose, 10x10 at SSD 90 cm, 3-30 mm; sigma from the linear growth "
    "of the surface dose from 10 % (5x5) to 28 % (20x20), Apipunyasopon et al., J. Appl. Clin. Med. Phys. 14 (2013)"
)
_SCALED = (
    "estimate: amount from the 14 % that a 10 MV pencil kernel without contamination lacks in the build-up of a 10x10; "
    "depth that of 6 MV in proportion to the depth of maximum; sigma that of 6 MV"
)

_HEAD = Head(scatter=0.08, scatter_sigma=22.0, back_scatter_upper=0.01, back_scatter_lower=0.005)

_FLATTENED = (
    PhotonModel(
        "generic_photon_6mv",
        6.0,
        quality=0.685,
        source_fwhm=2.5,
        horn=0.07,
        horn_radius=52.0,
        contamination=Contamination(0.092, 7.25, 60.0, _TANK),
        head=_HEAD,
    ),
    PhotonModel(
        "generic_photon_10mv",
        10.0,
        quality=0.738,
        source_fwhm=2.5,
        horn=0.07,
        horn_radius=52.0,
        contamination=Contamination(0.14, 10.8, 60.0, _SCALED),
        head=_HEAD,
    ),
    PhotonModel(
        "generic_photon_15mv",
        15.0,
        quality=0.76,
        source_fwhm=2.5,
        horn=0.07,
        horn_radius=52.0,
        contamination=Contamination(0.14, 13.0, 60.0, _SCALED),
        head=_HEAD,
    ),
)

_UNFLATTENED = (
    PhotonModel(
        "generic_photon_6mv_fff",
        6.0,
        quality=0.655,
        source_fwhm=2.5,
        horn=0.0,
        horn_radius=52.0,
        contamination=Contamination(0.02, 7.25, 60.0, "chosen beside the depth dose of the 10x10 in " + _TRUEBEAM),
        head=replace(_HEAD, scatter=0.05),
        off_axis=(
            (10.0, 0.9942), (20.0, 0.9791), (30.0, 0.9593), (40.0, 0.9327), (50.0, 0.9047), (60.0, 0.8753),
            (80.0, 0.8168), (100.0, 0.7612), (120.0, 0.7104), (140.0, 0.6633), (160.0, 0.6206), (180.0, 0.5816),
            (200.0, 0.5447), (220.0, 0.5116),
        ),
    ),
    PhotonModel(
        "generic_photon_10mv_fff",
        10.0,
        quality=0.7124,
        source_fwhm=2.5,
        horn=0.0,
        horn_radius=52.0,
        contamination=Contamination(0.103, 7.6, 60.0, "fitted to the depth dose of the 40x40 in " + _TRUEBEAM),
        head=replace(_HEAD, scatter=0.0361),
        off_axis=(
            (10.0, 0.9838), (20.0, 0.9463), (30.0, 0.9039), (40.0, 0.855), (50.0, 0.8084), (60.0, 0.7639),
            (80.0, 0.6845), (100.0, 0.6165), (120.0, 0.5583), (140.0, 0.5084), (160.0, 0.4647), (180.0, 0.4261),
            (200.0, 0.3922), (220.0, 0.3608),
        ),
    ),
)  # fmt: skip

MODELS = (*_FLATTENED, *_UNFLATTENED)


def compress(kernel: Kernel, rank: int) -> LowRankKernel:
    r"""Return the kernel as radial functions times weights, uncalibrated.

    The functions are the leading right singular vectors of :math:`C(R; z, s)`, the dose of a round field of radius R
    in the isocentre plane, over depths 0.5 mm-40 cm, each at the distances that belong to surface distances of
    75-100 cm and, with a thirtieth of the weight, at all other stretches of the table (short ones serve density
    scaling). Every row counts relative to the dose of a 10x10 field at its depth. The weights at all table nodes
    are the least-squares projections on these functions.
    """
    surface = np.linspace(750.0, 1000.0, 11)
    depth, ssd = (axis.reshape(-1) for axis in np.meshgrid(DEPTH[::4], surface, indexing="ij"))
    beyond_depth, beyond = (axis.reshape(-1) for axis in np.meshgrid(DEPTH[::4], STRETCH[::4], indexing="ij"))
    outside = (beyond < 0.75) | (beyond > 1.4)
    depth = np.concatenate([depth, beyond_depth[outside]])
    stretch = np.concatenate([(ssd + depth[: ssd.size]) / SAD, beyond[outside]])
    row_weight = np.where(np.arange(depth.size) < ssd.size, 1.0, 0.03) / kernel.square(depth, 50.0 * stretch)
    radius_weight = np.concatenate([[0.3], np.minimum(1.0, np.sqrt(RADIUS[1:] / 3))])
    seen = kernel.disk(depth[:, None], stretch[:, None] * RADIUS) * row_weight[:, None] * radius_weight
    _, size, vectors = np.linalg.svd(seen, full_matrices=False)
    sign = np.sign(vectors[:rank].sum(axis=1))
    scale = sign * size[:rank] / size[0]
    cumulated = vectors[:rank] / radius_weight * scale[:, None]
    cumulated[:, 0] = 0.0
    table_depth, table_stretch = (axis.reshape(-1, 1) for axis in np.meshgrid(DEPTH, STRETCH, indexing="ij"))

    def table(disk: Callable[[Array, Array], Array]) -> Array:
        seen = disk(table_depth, table_stretch * RADIUS) * radius_weight @ (vectors[:rank] / scale[:, None]).T
        return seen.T.reshape(rank, DEPTH.size, STRETCH.size)

    return LowRankKernel(RADIUS, cumulated, DEPTH, STRETCH, table(kernel.disk), table(kernel.scattered_disk))


def square_dose(
    slope: Callable[[Array], Array], model: PhotonModel, stretch: float, half_side: float, magnified: bool
) -> float:
    r"""Return the axis dose of an open square field of unit weight, horn included.

    :math:`(SAD/L)^2 \int C'(r) \Psi(r) f(r)\,dr` with f the part of the circle of radius r inside the square.

    Parameters
    ----------
    slope : function of (n,) radii [mm] to (n,)
        Derivative of the cumulated kernel.
    model : PhotonModel
        Gives the horn.
    stretch : float
        Distance from the source over SAD.
    half_side : float
        Half the field's side in the isocentre plane [mm].
    magnified : bool
        Whether the kernel is one of true distances rather than of those in the isocentre plane.
    """
    nodes, weights = np.polynomial.legendre.leggauss(64)
    inner = half_side * (nodes + 1) / 2
    angle = (nodes + 1) * np.pi / 8
    outer = half_side / np.cos(angle)
    scale = stretch if magnified else 1.0

    def ring(radius: Array) -> Array:
        return scale * slope(scale * radius) * model.profile(radius)

    dose = weights @ ring(inner) * half_side / 2
    dose += weights @ (ring(outer) * (1 - 4 * angle / np.pi) * outer * np.tan(angle)) * np.pi / 8
    return float(dose) / stretch**2


def make(model: PhotonModel) -> PhotonMachine:
    """Return the machine of a model, calibrated."""
    kernel, electrons = KERNELS[model.kernel](model.quality), model.contamination

    def photons(depth: float) -> float:
        return square_dose(lambda r: kernel.slope(np.asarray(depth), r), model, 1 + depth / SAD, 50.0, True)

    _, most = _highest(photons)

    def both(depth: float) -> float:
        through = square_dose(electrons.slope, model, 1 + depth / SAD, 50.0, False)
        return photons(depth) + most * float(electrons.weight(np.asarray(depth))) * through

    peak, dose = _highest(both)
    profile_radius = np.arange(0.0, 301.0, 2.0)
    return PhotonMachine(
        name=model.name,
        energy=model.energy,
        sad=SAD,
        source_fwhm=model.source_fwhm,
        profile_radius=profile_radius,
        profile=model.profile(profile_radius),
        kernel=_with_electrons(
            _compressed(model.kernel, model.quality, model.rank), electrons, most, model.dose_per_mu / dose
        ),
        distance="axis",
        reference=Reference(model.dose_per_mu, (100.0, 100.0), 1000.0, 1000.0, round(peak, 2)),
        provenance=_provenance(model),
        head=model.head,
        collimation=model.collimation,
    )


@lru_cache(maxsize=16)
def _compressed(kernel: str, quality: float, rank: int) -> LowRankKernel:
    return compress(KERNELS[kernel](quality), rank)


def _highest(dose: Callable[[float], float]) -> tuple[float, float]:
    """Return the depth [mm] and the value of the maximum of a depth dose."""
    found = minimize_scalar(lambda depth: -dose(depth), bounds=(2.0, 60.0), method="bounded", options={"xatol": 1e-4})
    return float(found.x), -float(found.fun)


def _with_electrons(photons: LowRankKernel, electrons: Contamination, most: float, factor: float) -> LowRankKernel:
    """Return the calibrated kernel with one more function; its weight does not depend on the distance."""
    table = most * np.broadcast_to(electrons.weight(DEPTH)[None, :, None], (1, DEPTH.size, STRETCH.size))
    if photons.scattered is None:
        raise InputError("the photon kernel does not tell scatter from primary")
    return LowRankKernel(
        RADIUS,
        np.concatenate([photons.cumulated, electrons.cumulated(RADIUS)[None]]),
        DEPTH,
        STRETCH,
        np.concatenate([photons.table, table]) * factor,
        np.concatenate([photons.scattered, np.zeros_like(table)]) * factor,
    )


def _provenance(model: PhotonModel) -> dict[str, object]:
    told = asdict(model)
    if not model.off_axis:
        del told["off_axis"]
    if model.collimation == Collimation():
        del told["collimation"]
    if model.kernel == "nyholm":
        del told["kernel"]
    return {
        "made_by": "python -m radplan.machines.generate.photon",
        "model": told,
        "kernel": KERNEL_SOURCES[model.kernel],
        "contamination": (
            "Gaussian in the isocentre plane, Gaussian in depth, after Ahnesjö and Andreo, Phys. Med. Biol. 34 (1989) "
            "1451; nearer the surface than 3 mm the photon kernel itself is too high"
        ),
        "scattered": "Nyholm's second term, projected on the functions of the sum of both",
        "compression": (
            f"rank {model.rank} decomposition of the cumulated kernel over depth 0.5-400 mm and surface distance "
            "750-1000 mm; weights clamped to depth 0.5-400 mm and distance / SAD 0.15-1.5; cut-off 400 mm"
        ),
        "calibration": f"{model.dose_per_mu} Gy/MU, 10x10 cm at the surface, SSD 100 cm, depth of maximum",
        "head": (
            "scatter within the 6.5 to 10 % and 19 to 30 mm of published models, chosen beside output factors of two "
            "6 MV linacs, 3x3 to 40x40; the same at 10 and 15 MV; back-scatter from closed jaws an estimate of the "
            "order that Zavgorodni et al., arXiv 1308.0367 (2013), measured"
        ),
        "off_axis": _NODES if model.off_axis else _HORN,
        "licence": "Apache-2.0",
    }


def main(names: Sequence[str] = ()) -> None:
    """Write the named machines, or all, to the library folder."""
    models = {model.name: model for model in MODELS}
    for name in names or models:
        if name not in models:
            raise UnknownNameError("photon model", name, models)
        path = Path(__file__).parents[1] / "library" / f"{name}.npz"
        write_photon_machine(make(models[name]), path)
        sys.stdout.write(f"{path} ({path.stat().st_size / 1024:.0f} kB)\n")


if __name__ == "__main__":
    main(sys.argv[1:])
