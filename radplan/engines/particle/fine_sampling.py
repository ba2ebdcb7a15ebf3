r"""Fine sampling: spots split into narrow sub-beamlets, each with the radiological depth along its own path.

A spot of variance :math:`\sigma_0^2` at the surface becomes sub-beamlets on a square lattice of pitch h, with shares
:math:`w_i \propto e^{-r_i^2/2(\sigma_0^2 - \sigma_s^2)}` and one variance :math:`\sigma_0^2 - \sum_i w_i x_i^2` each,
about :math:`\sigma_s^2`: the sum has the spot's own variance, and ripples of
:math:`2 e^{-2 \pi^2 \sigma_s^2 / h^2} < 2 \cdot 10^{-4}`. Sub-beamlets run parallel to their spot. In water they add
up to the spot; behind an edge of tissue a part of them has one range and a part another. Depths are read along lines
from the source, off which parallel sub-beamlets lie by their offset times the distance from the isocentre over the SAD:
some tenths of a millimetre at 10 m, but 2 to 4 mm for one 30 mm beside its spot, 130 mm from the isocentre at 1 to 2 m.

Sources: Hong et al., Phys. Med. Biol. 41 (1996) 1305; Szymanowski & Oelfke, Phys. Med. Biol. 47 (2002) 3313; matRad's
"fineSampling" for the idea. Shares and widths are our own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from radplan.beams.beam import Beam
from radplan.engines.particle.spots import Scene, Spots
from radplan.geometry.rays import radiological_depth

Floats = npt.NDArray[np.float64]

_PITCH = 1.4
"""Largest pitch of the lattice, in widths of a sub-beamlet."""

_LEAST = 3e-4
"""Share, of the largest one, below which a sub-beamlet is left out."""

_SAME_PLACE = 1e-6
"""Distance below which paths count as one [mm]."""


def split(spots: Spots, width: float, bixel_width: float) -> Spots:
    """Return spots split into sub-beamlets of at least a width [mm]; those that are no wider stay whole.

    Parameters
    ----------
    spots : Spots
        Every spot with a column of its own.
    width : float
        Standard deviation of a sub-beamlet at the surface [mm].
    bixel_width : float
        Distance of spots [mm], of which the lattice's pitch is a whole part: sub-beamlets of neighbours share paths.

    >>> shares_of(np.asarray([25.0]), lattice(5.0, 2.5, 1.0, 5.0), 4.0)[0].sum().round(12).tolist()
    1.0
    """
    # Why the narrower of x and y: what is left for a sub-beamlet must be a width along both.
    narrow = spots.variance(spots.surfaces).min(axis=1)
    offsets = lattice(math.sqrt(float(narrow.max())), width, _PITCH, bixel_width)
    shares = shares_of(narrow, offsets, width**2)
    left = spots.variances.copy()
    left[:, [0, 3]] -= (shares @ offsets[:, 0] ** 2)[:, None]
    spot, offset = np.nonzero(shares)
    ray = np.repeat(np.arange(spots.x.size), np.diff(spots.first))[spot]
    keys, new = np.unique(ray * offsets.shape[0] + offset, return_inverse=True)
    old, moved = keys // offsets.shape[0], offsets[keys % offsets.shape[0]]
    x, y = spots.x[old] + moved[:, 0], spots.y[old] + moved[:, 1]
    order = np.lexsort((y, x))
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    owner = rank[new.reshape(-1)]
    by_ray = np.argsort(owner, kind="stable")
    spot, offset = spot[by_ray], offset[by_ray]
    return replace(
        spots,
        x=x[order],
        y=y[order],
        directions=np.ascontiguousarray(spots.directions[old][order]),
        first=np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=order.size))]).astype(np.int64),
        columns=spots.columns[spot],
        energies=spots.energies[spot],
        shifts=spots.shifts[spot],
        shares=shares[spot, offset],
        variances=left[spot],
        surfaces=spots.surfaces[spot],
        origins=spots.origins[old][order] + np.column_stack([moved[order], np.zeros(order.size)]),
    )


def lattice(sigma: float, width: float, pitch: float, bixel_width: float) -> Floats:
    """Return the offsets ``(o, 2)`` [mm] at which a spot of width sigma [mm] may have sub-beamlets.

    Parameters
    ----------
    width : float
        Of a sub-beamlet [mm].
    pitch : float
        Largest pitch, in widths of a sub-beamlet.
    bixel_width : float
        Whole multiple of the pitch [mm].

    >>> lattice(3.0, 2.9, 1.4, 5.0).shape  # 5 x 5 places 2.5 mm apart
    (25, 2)
    """
    step = bixel_width / math.ceil(bixel_width / (pitch * width) - 1e-9)
    spread = math.sqrt(max(sigma**2 - width**2, 0.0))
    reach = spread * math.sqrt(-2.0 * math.log(_LEAST))
    count = math.ceil(reach / step)
    axis = np.arange(-count, count + 1) * step
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)


def shares_of(variances: Floats, offsets: Floats, variance: float) -> Floats:
    """Return the share of each spot ``(s,)`` at each offset ``(o, 2)`` [mm], shape (s, o), each row summing to 1.

    Parameters
    ----------
    variances : array of shape (s,)
        Of the spots [mm^2].
    offsets : array of shape (o, 2)
        Zero among them.
    variance : float
        Of the sub-beamlets [mm^2].
    """
    spread = np.maximum(variances - variance, 1e-9)
    shares = np.exp(-0.5 * np.sum(offsets**2, axis=1) / spread[:, None])
    shares[shares < _LEAST] = 0.0
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def strayed(beam: Beam, spots: Spots, scene: Scene) -> float:
    r"""Return how far sub-beamlets lie at most from the line between the source and their place in the isocentre plane.

    Sub-beamlets run parallel to their spot and so keep their offset r, which that line has in the isocentre plane only:
    :math:`r |1 - L / SAD|` [mm] along each axis, at a distance L from the source; so near sources matter.
    """
    away = (scene.points - beam.isocenter) @ beam.rotation[:, 2]
    return float(np.abs(spots.origins).max() * np.abs(away).max() / scene.machine.sad)


@dataclass(frozen=True, eq=False)
class Paths:
    """Radiological depth along the paths of sub-beamlets; see `radplan.kernels.spots.SpotField`.

    Parameters
    ----------
    depths : array of shape (p, n)
        Radiological depth [mm] at equal distances along each path; n = 0 where voxels have depths of their own.
    of_ray : array of shape (r,)
        The path of each ray, int32.
    start, step : float
        Distance from the source of the first one, and between neighbours [mm].
    """

    depths: Floats
    of_ray: npt.NDArray[np.int32]
    start: float
    step: float

    @classmethod
    def none(cls, rays: int) -> Paths:
        """Return no paths for a number of rays."""
        return cls(np.zeros((0, 0)), np.zeros(rays, dtype=np.int32), 0.0, 1.0)

    @classmethod
    def of(cls, beam: Beam, spots: Spots, scene: Scene) -> Paths:
        """Return the paths from the source through the places of a beam's rays in the isocentre plane.

        The parallel rays of one spot lie off them by what `strayed` bounds: a sub-beamlet 10 mm beside its spot is 0.2
        mm off at 200 mm from the isocentre with the source at 10 m, 1 mm at 2 m and 2 mm at 1 m.
        """
        places, of_ray = np.unique(
            np.round(np.column_stack([spots.x, spots.y]) / _SAME_PLACE).astype(np.int64), axis=0, return_inverse=True
        )
        targets = beam.isocenter + (places * _SAME_PLACE) @ beam.rotation[:, :2].T
        towards = targets - beam.source
        towards /= np.linalg.norm(towards, axis=1, keepdims=True)
        low, high = scene.ct_grid.bounds
        corners = np.stack(np.meshgrid(*np.stack([low, high], axis=1), indexing="ij"), axis=-1).reshape(-1, 3)
        along = (corners - beam.source) @ (beam.isocenter - beam.source) / scene.machine.sad
        step = 0.5 * min(scene.ct_grid.spacing)
        start, count = float(along.min()), math.ceil((1.05 * float(np.ptp(along)) + step) / step) + 1
        distances = start + np.arange(count) * step
        points = beam.source + distances[:, None] * towards[:, None, :]
        depths = radiological_depth(scene.density, scene.ct_grid, beam.source, points.reshape(-1, 3))
        depths = scene.error.depths(np.asarray(depths))
        return cls(depths.reshape(-1, count), of_ray.reshape(-1).astype(np.int32), start, step)
