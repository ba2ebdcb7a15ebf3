"""Channels of a dose proposer: distances to the targets, depth, CT, prescription, conformal dose and organs.

Whatever physics knows is computed here, so that a network or trees learn the rest. All channels are given in the
voxels where dose counts, as one row a channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from radplan.ai.halves import doubled, halves
from radplan.errors import InputError
from radplan.geometry.frames import beam_rotation, isocentre_plane, source_position, world_to_beam
from radplan.geometry.grid import Grid
from radplan.geometry.rays import radiological_depth
from radplan.geometry.resample import resample_linear, resample_overlap
from radplan.kernels.plates import shadow_shares
from radplan.patient.ct import HU_TABLES
from radplan.patient.patient import Patient
from radplan.patient.structures import resample_weights

Volume = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

ATTENUATION = 0.0046
"""Fall of open-field dose with water-equivalent depth behind the maximum, 6 MV [1/mm]."""

PENUMBRA = 3.5
"""Standard deviation of the shadow's edge in the isocentre plane [mm]: a penumbra (80-20 %) of 6 mm."""

_ABSENT = 200.0
_PITCH = 4.0
_SAD = 1000.0


@dataclass(frozen=True, eq=False)
class Anatomy:
    """What a proposer of dose sees of a patient: CT numbers, where dose counts, and parts of voxels by name.

    Parameters
    ----------
    name : str
        The patient's.
    grid : Grid
        Where the volumes lie.
    hu : array of shape (nz, ny, nx)
        CT numbers [HU].
    inside : array of shape (nz, ny, nx)
        Where dose counts: the body, or a given mask.
    parts : mapping of str to array of shape (nz, ny, nx)
        Of each structure the part of each voxel that belongs to it, 0 to 1.
    """

    name: str
    grid: Grid
    hu: Volume
    inside: Mask
    parts: Mapping[str, Volume]

    def __post_init__(self) -> None:
        for name, volume in (("hu", self.hu), ("inside", self.inside), *self.parts.items()):
            if volume.shape != self.grid.shape:
                raise InputError(f"{name} of {self.name} has shape {volume.shape}, its grid {self.grid.shape}")
        if not self.inside.any():
            raise InputError(f"there is no voxel of {self.name} in which dose counts")

    @classmethod
    def from_patient(cls, patient: Patient, names: Sequence[str], mask: str | None = None) -> Anatomy:
        """Return what is seen of a patient on the CT's grid; structures that are not there are left out.

        Parameters
        ----------
        patient : Patient
            The patient.
        names : sequence of str
            Structures wanted.
        mask : str, optional
            Structure in which dose counts; None takes the external contour.
        """
        grid = patient.ct.grid
        parts = {name: _part(patient, name, grid) for name in names if name in patient.structures}
        inside = patient.structures[mask].mask() if mask is not None else patient.dosed_mask()
        return cls(patient.name, grid, np.asarray(patient.ct.hu, dtype=np.float32), inside, parts)

    def on(self, grid: Grid) -> Anatomy:
        """Return the anatomy on another grid: CT numbers interpolated, parts by exact shares of voxels."""
        inside = resample_overlap(self.inside.astype(np.float32), self.grid, grid) >= 0.5
        hu = resample_linear(self.hu, self.grid, grid, outside=-1024.0)
        parts = {name: resample_overlap(part, self.grid, grid) for name, part in self.parts.items()}
        return Anatomy(self.name, grid, hu, inside, parts)


@dataclass(frozen=True)
class Layout:
    """Which channels there are, in which order; a model card names it.

    Parameters
    ----------
    levels : mapping of str to float
        Targets and their prescribed doses [Gy], highest first.
    organs : sequence of str
        Organs whose masks are channels.
    angles : sequence of float
        Gantry angles of the beams [degree], couch 0.
    mirrored : mapping of str to str
        Organs that change places when left and right do.
    half_voxels : bool
        Whether targets end in the middle of voxels too, where their parts say so; otherwise a voxel is in a target
        when half of it is.
    """

    levels: Mapping[str, float]
    organs: tuple[str, ...]
    angles: tuple[float, ...]
    mirrored: Mapping[str, str] = field(default_factory=dict)
    half_voxels: bool = False

    def __post_init__(self) -> None:
        doses = list(self.levels.values())
        if not doses or min(doses) <= 0 or doses != sorted(doses, reverse=True):
            raise InputError(f"levels must be doses > 0 Gy, highest first, got {dict(self.levels)}")
        if not self.angles:
            raise InputError("a layout needs at least one gantry angle")
        for name, other in self.mirrored.items():
            if name not in self.organs or other not in self.organs:
                raise InputError(f"mirrored organs {name!r} and {other!r} must be among {', '.join(self.organs)}")

    @property
    def prescription(self) -> float:
        """The highest prescribed dose [Gy], the unit of predictions."""
        return max(self.levels.values())

    @property
    def structures(self) -> tuple[str, ...]:
        """Names of all structures that are looked for."""
        return (*self.levels, *self.organs)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels in their order."""
        distances = tuple(f"distance {name}" for name in (*self.levels, "targets"))
        place = ("depth", "off slice", "z", "y", "|x|", "CT", "prescription")
        return (*distances, *place, "conformal", "conformal highest", "plate", *self.organs)

    @property
    def swaps(self) -> tuple[int, ...]:
        """Of each channel the one whose place it takes in the mirrored patient."""
        names = self.channels
        return tuple(names.index(self.mirrored.get(name, name)) for name in names)

    def as_dict(self) -> dict[str, Any]:
        """Return the layout as plain data, for a model card."""
        return {
            "levels": dict(self.levels),
            "organs": list(self.organs),
            "angles": list(self.angles),
            "mirrored": dict(self.mirrored),
            "half_voxels": self.half_voxels,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Layout:
        """Return the layout that `as_dict` wrote."""
        levels = {str(name): float(dose) for name, dose in data["levels"].items()}
        angles = tuple(float(angle) for angle in data["angles"])
        return cls(levels, tuple(data["organs"]), angles, dict(data["mirrored"]), bool(data.get("half_voxels", False)))


def dose_channels(anatomy: Anatomy, layout: Layout) -> npt.NDArray[np.float32]:
    r"""Return the channels (channels, n) in the n voxels where dose counts, in C order.

    Signed distances [50 mm], positive outside, clipped to -40 ... 100 mm (the union's to 150 mm); depth under the
    skin [30 mm]; distance to the targets' slices [30 mm]; place beside the targets' centre [100 mm]; CT [500 HU];
    prescribed dose [highest level]; conformal dose :math:`\sum_b s_b (D/L)^2 e^{-\mu d}` of the targets' shadow s_b
    with a penumbra of each beam, at distance L from the source and depth d, over its mean in the target; the mean of
    s_b; and the organs' parts. A target that is absent is 200 mm away.

    Raises
    ------
    InputError
        When none of the levels is there.
    """
    present = {name: anatomy.parts[name] for name in layout.levels if _drawn(anatomy.parts.get(name))}
    if not present:
        raise InputError(
            f"{anatomy.name} has none of the targets {', '.join(layout.levels)}: "
            f"of the structures that the model knows it has {', '.join(anatomy.parts) or 'none'}; rename its targets, "
            "or take a model made for them"
        )
    inside, sampling, finely = anatomy.inside, anatomy.grid.spacing[::-1], layout.half_voxels
    union = np.clip(np.sum(list(present.values()), axis=0), 0.0, 1.0)
    rows: list[npt.NDArray[Any]] = [
        np.clip(_signed_distance(anatomy.parts.get(n), sampling, inside, finely), -40, 100) / 50 for n in layout.levels
    ]
    rows.append(np.clip(_signed_distance(union, sampling, inside, finely), -40, 150) / 50)
    skin = ndimage.distance_transform_edt(np.pad(inside, 1), sampling)[1:-1, 1:-1, 1:-1]
    rows.append(np.clip(skin[inside], 0, 60) / 30)
    rows += _places(union, anatomy, finely)
    rows.append(np.clip(anatomy.hu[inside], -1000, 1000) / 500)
    shares = [part[inside] * (layout.levels[name] / layout.prescription) for name, part in present.items()]
    rows.append(np.max(shares, axis=0))
    highest = present[max(present, key=lambda name: layout.levels[name])]
    rows += list(conformal_dose(anatomy, layout.angles, (union, highest), finely))
    absent = np.zeros(int(inside.sum()), dtype=np.float32)
    rows += [anatomy.parts[name][inside] if name in anatomy.parts else absent for name in layout.organs]
    return np.stack([np.asarray(row, dtype=np.float32) for row in rows])


def conformal_dose(
    anatomy: Anatomy, angles: Sequence[float], targets: tuple[Volume, Volume], half_voxels: bool = False
) -> tuple[Volume, Volume, Volume]:
    """Return open-field dose of two targets' shadows and the first one's mean shadow, each (n,), where dose counts.

    Each dose is over its own mean in its target. The isocentre is the centre of the first target. See `Layout` for
    `half_voxels`.
    """
    grid, inside = anatomy.grid, anatomy.inside
    voxels = np.flatnonzero(inside)
    points = grid.points(voxels)
    clouds = [_cloud(grid, part, half_voxels) for part in targets]
    isocentre = clouds[0].mean(axis=0)
    depths = _Depths(anatomy, voxels)
    dose = np.zeros((2, voxels.size))
    plate = np.zeros(voxels.size)
    for angle in angles:
        rotation = beam_rotation(angle)
        x, y, distance = isocentre_plane(world_to_beam(points, isocentre, rotation), _SAD)
        fall = (_SAD / distance) ** 2 * np.exp(-ATTENUATION * depths.seen_from(isocentre, rotation))
        for k, cloud in enumerate(clouds):
            u, v, _ = isocentre_plane(world_to_beam(cloud, isocentre, rotation), _SAD)
            shadow = _shadow(u, v, x, y)
            dose[k] += shadow * fall
            plate += shadow if k == 0 else 0.0
    for k, part in enumerate(targets):
        weights = part[inside]
        mean = float(np.average(dose[k], weights=weights)) if weights.any() else float(dose[k].max())
        dose[k] /= max(mean, 1e-6)
    first, second = dose.astype(np.float32)
    return first, second, (plate / len(angles)).astype(np.float32)


def _part(patient: Patient, name: str, grid: Grid) -> Volume:
    structure = patient.structures[name]
    part = np.zeros(grid.size, dtype=np.float32)
    if structure.grid == grid:
        part[structure.voxels] = 1.0 if structure.fraction is None else structure.fraction
    else:
        voxels, coverage = resample_weights(structure.grid, structure.voxels, structure.fraction, grid)
        part[voxels] = coverage
    return part.reshape(grid.shape)


def _drawn(part: Volume | None) -> bool:
    return part is not None and bool(part.any())


def _within(part: Volume) -> Mask:
    return part >= 0.5 if (part >= 0.5).any() else part > 0


def _signed_distance(
    part: Volume | None, sampling: Sequence[float], inside: Mask, half_voxels: bool
) -> npt.NDArray[np.float64]:
    """Return distances [mm] to the surface of a structure where dose counts, negative in it."""
    if part is None or not part.any():
        return np.full(int(inside.sum()), _ABSENT)
    # Why: the transform takes as long as its box is large, and half of a CT is air around the body.
    seen = ndimage.find_objects(((part > 0) | inside).astype(np.uint8))[0]
    part, inside = part[seen], inside[seen]
    within = halves(part) > 0 if half_voxels else _within(part)
    size = [s / 2 for s in sampling] if half_voxels else sampling
    distance = ndimage.distance_transform_edt(~within, size)
    box = ndimage.find_objects(within.astype(np.uint8))[0]
    distance[box] -= ndimage.distance_transform_edt(np.pad(within[box], 1), size)[1:-1, 1:-1, 1:-1]
    if half_voxels:
        nz, ny, nx = part.shape
        distance = distance.reshape(nz, 2, ny, 2, nx, 2).mean(axis=(1, 3, 5))
    return np.asarray(distance[inside])


def _half_cells(part: Volume) -> tuple[npt.NDArray[np.float64], ...]:
    """Return places z, y, x [voxels] of the halves of voxels that are in a target."""
    return tuple((cell + 0.5) / 2 - 0.5 for cell in np.nonzero(halves(part)))


def _places(target: Volume, anatomy: Anatomy, half_voxels: bool) -> list[npt.NDArray[np.float64]]:
    """Return the distance to the targets' slices and the place beside their centre, scaled."""
    z, y, x = np.nonzero(anatomy.inside)
    dx, dy, dz = anatomy.grid.spacing
    tz, ty, tx = _half_cells(target) if half_voxels else np.nonzero(_within(target))
    off = np.maximum(0, np.maximum(tz.min() - z, z - tz.max())) * dz / 30.0
    return [off, (z - tz.mean()) * dz / 100, (y - ty.mean()) * dy / 100, np.abs(x - tx.mean()) * dx / 100]


def _cloud(grid: Grid, part: Volume, half_voxels: bool) -> npt.NDArray[np.float64]:
    """Return eight points in each voxel of a target, so that its shadow has no holes; of parts in eighths as many."""
    if half_voxels:
        z, y, x = _half_cells(part)
        return np.asarray(np.stack([x, y, z], axis=1) * np.asarray(grid.spacing) + np.asarray(grid.origin))
    centres = grid.points(np.flatnonzero(_within(part)))
    quarter = 0.25 * np.asarray(grid.spacing)
    corners = np.stack(np.meshgrid(*[(-q, q) for q in quarter], indexing="ij"), axis=-1).reshape(-1, 3)
    return np.asarray((centres[:, None, :] + corners).reshape(-1, 3))


def _shadow(
    u: npt.NDArray[np.float64], v: npt.NDArray[np.float64], x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return how far points (x, y) of the isocentre plane lie in the shadow of points (u, v): 1 in it, 0 far off."""
    margin = 8 * PENUMBRA
    low_u, low_v = u.min() - margin, v.min() - margin
    counts = [int((hull.max() + margin - low) / _PITCH) + 2 for hull, low in ((v, low_v), (u, low_u))]
    plate = np.zeros(counts, dtype=bool)
    plate[((v - low_v) / _PITCH).astype(np.int64), ((u - low_u) / _PITCH).astype(np.int64)] = True
    outer = ndimage.distance_transform_edt(~plate, _PITCH)
    inner = ndimage.distance_transform_edt(plate, _PITCH)
    # Why: between cell centres the edge lies half a cell from either side.
    edge = np.where(plate, _PITCH / 2 - inner, outer - _PITCH / 2)
    return np.asarray(shadow_shares(edge, np.asarray([low_u, low_v]), _PITCH, x, y, PENUMBRA))


class _Depths:
    """Water-equivalent depths of voxels, traced on a grid of half the resolution and interpolated from there."""

    def __init__(self, anatomy: Anatomy, voxels: npt.NDArray[np.int64]) -> None:
        grid = anatomy.grid
        table = HU_TABLES["schneider"]
        hu = np.clip(anatomy.hu, table.hu[0], table.hu[-1])
        density = np.interp(hu, table.hu, table.density).astype(np.float32) * anatomy.inside
        self._size = (grid.shape[0] + 1) // 2, (grid.shape[1] + 1) // 2, (grid.shape[2] + 1) // 2
        self._density = _halved(density, self._size)
        solid = _halved(anatomy.inside.astype(np.float32), self._size)
        spacing = (2 * grid.spacing[0], 2 * grid.spacing[1], 2 * grid.spacing[2])
        origin = tuple(o + 0.5 * s for o, s in zip(grid.origin, grid.spacing, strict=True))
        self._grid = Grid(self._size, spacing, (origin[0], origin[1], origin[2]))
        self._coarse = np.flatnonzero(solid)
        self._points = self._grid.points(self._coarse)
        self._voxels = np.ravel_multi_index(np.unravel_index(voxels, grid.shape), [2 * n for n in self._size])
        self._solid = doubled((solid > 0).astype(np.float64)).reshape(-1)[self._voxels]

    def seen_from(
        self, isocentre: npt.NDArray[np.float64], rotation: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """Return depths [mm of water] of the voxels (n,) as a source at `rotation` sees them."""
        source = source_position(isocentre, rotation, _SAD)
        depth = np.zeros(self._grid.size)
        depth[self._coarse] = radiological_depth(self._density, self._grid, source, self._points)
        mixed = doubled(depth.reshape(self._size)).reshape(-1)[self._voxels]
        return np.asarray(mixed / np.maximum(self._solid, 1e-3))


def _halved(volume: Volume, size: tuple[int, int, int]) -> Volume:
    """Return means over 2 x 2 x 2 voxels, of the voxels there are at odd ends."""
    pads = [(0, 2 * n - m) for n, m in zip(size, volume.shape, strict=True)]
    even = np.pad(volume, pads, mode="edge")
    return np.asarray(even.reshape(size[0], 2, size[1], 2, size[2], 2).mean(axis=(1, 3, 5)), dtype=np.float32)
