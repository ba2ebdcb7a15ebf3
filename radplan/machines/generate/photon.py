"""Make the photon machines that radplan ships: ``python -m radplan.machines.generate.photon [name ...]``.

A machine is one line of `MODELS`. Its kernel is Nyholm's at that beam quality, seen in the isocentre plane at every
depth and distance, and compressed by a singular value decomposition of the *cumulated* kernel: the dose of a round
field is what must be right, and the cumulated kernel has no singularity.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar

from radplan.arrays import Array
from radplan.errors import UnknownNameError
from radplan.machines.base import Reference
from radplan.machines.files import write_photon_machine
from radplan.machines.generate.nyholm import NyholmKernel
from radplan.machines.low_rank import LowRankKernel
from radplan.machines.photon import PhotonMachine

SAD = 1000.0
RADIUS = np.concatenate([[0.0], np.geomspace(0.05, 400.0, 160)])
DEPTH = np.linspace(np.sqrt(0.5), np.sqrt(400.0), 320) ** 2
STRETCH = np.linspace(0.15, 1.5, 55)


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
    rank : int
        Number of radial functions kept.
    dose_per_mu : float
        Calibration at 10x10 at the surface, SSD 100 cm, depth of maximum [Gy/MU].
    """

    name: str
    energy: float
    quality: float
    source_fwhm: float
    horn: float
    horn_radius: float
    rank: int = 6
    dose_per_mu: float = 0.01

    def profile(self, radius: Array) -> Array:
        """Return the relative in-air fluence at radii [mm]."""
        return 1 + self.horn * -np.expm1(-((radius / self.horn_radius) ** 2))


MODELS = (
    PhotonModel("generic_photon_6mv", 6.0, quality=0.685, source_fwhm=2.5, horn=0.075, horn_radius=90.0),
    PhotonModel("generic_photon_10mv", 10.0, quality=0.738, source_fwhm=2.5, horn=0.075, horn_radius=90.0),
    PhotonModel("generic_photon_15mv", 15.0, quality=0.76, source_fwhm=2.5, horn=0.075, horn_radius=90.0),
)


def compress(kernel: NyholmKernel, rank: int) -> LowRankKernel:
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
    table = kernel.disk(table_depth, table_stretch * RADIUS) * radius_weight @ (vectors[:rank] / scale[:, None]).T
    table = table.T.reshape(rank, DEPTH.size, STRETCH.size)
    return LowRankKernel(RADIUS, cumulated, DEPTH, STRETCH, table)


def square_dose(kernel: NyholmKernel, model: PhotonModel, depth: float, half_side: float, ssd: float) -> float:
    r"""Return the axis dose of an open square field of unit weight, horn included.

    :math:`(SAD/L)^2 \int C'(r) \Psi(r) f(r)\,dr` with f the part of the circle of radius r inside the square.

    Parameters
    ----------
    depth, half_side, ssd : float
        Depth, half the field's side in the isocentre plane, surface distance [mm].
    """
    stretch = (ssd + depth) / SAD
    nodes, weights = np.polynomial.legendre.leggauss(64)
    inner = half_side * (nodes + 1) / 2
    angle = (nodes + 1) * np.pi / 8
    outer = half_side / np.cos(angle)

    def ring(radius: Array) -> Array:
        return stretch * kernel.slope(np.asarray(depth), stretch * radius) * model.profile(radius)

    dose = weights @ ring(inner) * half_side / 2
    dose += weights @ (ring(outer) * (1 - 4 * angle / np.pi) * outer * np.tan(angle)) * np.pi / 8
    return float(dose) / stretch**2


def make(model: PhotonModel) -> PhotonMachine:
    """Return the machine of a model, calibrated."""
    kernel = NyholmKernel(model.quality)
    peak = minimize_scalar(
        lambda depth: -square_dose(kernel, model, depth, 50.0, 1000.0),
        bounds=(2.0, 60.0),
        method="bounded",
        options={"xatol": 1e-4},
    )
    compressed = compress(kernel, model.rank)
    factor = model.dose_per_mu / -float(peak.fun)
    calibrated = LowRankKernel(RADIUS, compressed.cumulated, DEPTH, STRETCH, compressed.table * factor)
    profile_radius = np.arange(0.0, 301.0, 2.0)
    return PhotonMachine(
        name=model.name,
        energy=model.energy,
        sad=SAD,
        source_fwhm=model.source_fwhm,
        profile_radius=profile_radius,
        profile=model.profile(profile_radius),
        kernel=calibrated,
        distance="axis",
        reference=Reference(model.dose_per_mu, (100.0, 100.0), 1000.0, 1000.0, round(float(peak.x), 2)),
        provenance=_provenance(model),
    )


def _provenance(model: PhotonModel) -> dict[str, object]:
    return {
        "made_by": "python -m radplan.machines.generate.photon",
        "model": asdict(model),
        "kernel": "Nyholm et al., Radiother. Oncol. 78 (2006) 347, corrigendum 98 (2011) 286; without contamination",
        "compression": (
            f"rank {model.rank} decomposition of the cumulated kernel over depth 0.5-400 mm and surface distance "
            "750-1000 mm; weights clamped to depth 0.5-400 mm and distance / SAD 0.15-1.5; cut-off 400 mm"
        ),
        "calibration": f"{model.dose_per_mu} Gy/MU, 10x10 cm at the surface, SSD 100 cm, depth of maximum",
        "off_axis": "1 + horn (1 - exp(-(r/horn_radius)^2)), chosen beside measured 6 MV profiles",
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
