"""What anatomy generators share: seeds by patient, shapes, smooth deformation, rules that an anatomy must keep."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from radplan.errors import CalculationError, InputError
from radplan.geometry.grid import Grid
from radplan.patient import CT, Patient, Structure, Structures
from radplan.registry import Registry

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Points = tuple[Floats, Floats, Floats]

FAT, MUSCLE, AIR = -90.0, 40.0, -1000.0
"""Hounsfield units of what lies between organs, and outside [HU]."""
_TRIES = 50
_DEFORMATION = 8.0
"""Largest displacement of the smooth deformation along each axis [mm]."""
_SKIN = 5.0
"""Least distance of a target from the skin [mm]."""


@dataclass(frozen=True, eq=False)
class Anatomy:
    """What a generator draws: Hounsfield units and masks on its grid.

    Parameters
    ----------
    hu : array of shape (nz, ny, nx) [HU]
        The CT.
    masks : mapping of str to array of bool (nz, ny, nx)
        By canonical name; ``External`` is one of them.
    targets : tuple of str
        Which are targets.
    """

    hu: Floats
    masks: Mapping[str, Mask]
    targets: tuple[str, ...]


@dataclass(frozen=True)
class AnatomyGenerator(ABC):
    """Seeded anatomies of one site.

    Parameters
    ----------
    spacing : float
        Voxel size of the CT along all axes [mm].
    variation : float
        How far sizes and places vary, over the usual spread [1].
    noise : float
        Standard deviation of the CT's noise [HU].
    """

    spacing: float = 4.0
    variation: float = 1.0
    noise: float = 12.0

    name: ClassVar[str]
    extent: ClassVar[tuple[float, float, float]]
    """Size of the CT along x, y, z [mm]."""

    def __post_init__(self) -> None:
        if not 1.0 <= self.spacing <= 10.0:
            raise InputError(f"spacing of an anatomy must lie between 1 and 10 mm, got {self.spacing}")
        if not 0.0 <= self.variation <= 2.0:
            raise InputError(f"variation of an anatomy must lie between 0 and 2, got {self.variation}")

    @cached_property
    def grid(self) -> Grid:
        """The grid of the CT, its middle at the origin."""
        counts = [int(np.ceil(size / self.spacing)) for size in self.extent]
        origin = [-(count - 1) / 2 * self.spacing for count in counts]
        return Grid((counts[2], counts[1], counts[0]), (self.spacing,) * 3, (origin[0], origin[1], origin[2]))

    @abstractmethod
    def anatomy(self, random: np.random.Generator) -> Anatomy:
        """Return one anatomy drawn from a stream of random numbers; it may break the rules and be redrawn."""

    @classmethod
    def examples(cls) -> list[AnatomyGenerator]:
        """Return instances to check."""
        return [cls()]

    def varied(self, random: np.random.Generator, mean: float, deviation: float) -> float:
        """Return a normal number, clipped at two deviations."""
        return mean + self.variation * deviation * float(np.clip(random.normal(), -2.0, 2.0))

    def hounsfield(
        self, random: np.random.Generator, body: Mask, muscle: Mask, organs: Iterable[tuple[Mask, float]]
    ) -> Floats:
        """Return Hounsfield units (nz, ny, nx): air about the body, fat in it, muscle, organs in order, and noise.

        Parameters
        ----------
        random : numpy.random.Generator
            Of the noise.
        body, muscle : array of bool (nz, ny, nx)
            The outline, and what lies within the fat under the skin.
        organs : iterable of (array of bool, float)
            Masks and their values [HU]; where they overlap the last one counts.
        """
        hu = np.where(body, np.where(muscle, MUSCLE, FAT), AIR)
        for mask, value in organs:
            hu = np.where(mask & body, value, hu)
        return np.where(body, hu + random.normal(0.0, self.noise, hu.shape), hu)

    def points(self, random: np.random.Generator) -> Points:
        """Return coordinates X, Y, Z (nz, ny, nx) [mm], displaced smoothly: shapes drawn in them are deformed.

        The displacement is a sum of sines of wavelengths above 150 mm and at most 8 mm; its Jacobian stays positive.
        """
        x, y, z = np.meshgrid(*self.grid.axes, indexing="ij")
        whole = [axis.transpose(2, 1, 0) for axis in (x, y, z)]
        moved = []
        for axis in whole:
            shift = np.zeros(self.grid.shape)
            for _ in range(3):
                wave = random.uniform(-1.0, 1.0, 3)
                wave = wave / np.linalg.norm(wave) * 2.0 * np.pi / random.uniform(150.0, 400.0)
                phase = random.uniform(0.0, 2.0 * np.pi)
                shift += np.sin(sum(k * a for k, a in zip(wave, whole, strict=True)) + phase)
            moved.append(axis + self.variation * _DEFORMATION / 6.0 * shift)
        return moved[0], moved[1], moved[2]


GENERATORS: Registry[AnatomyGenerator] = Registry("anatomy generator", AnatomyGenerator)  # type: ignore[type-abstract]
"""All generators by name."""


def draw(generator: AnatomyGenerator, seed: int, index: int) -> tuple[Patient, int]:
    """Return patient `index` of a cohort, and how many anatomies were rejected before it.

    The patient depends on seed and index alone, not on which others are drawn. Targets keep 5 mm from the skin,
    organs are disjoint from each other, and no structure is empty.

    Parameters
    ----------
    generator : AnatomyGenerator
        Of which site.
    seed, index : int
        Root of the random numbers, and the number of the patient, >= 0.

    Raises
    ------
    CalculationError
        When none of fifty anatomies keeps the rules.
    """
    random = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, index])))
    for rejected in range(_TRIES):
        anatomy = generator.anatomy(random)
        if not broken_rules(anatomy, generator.grid):
            return _patient(generator, anatomy, index), rejected
    raise CalculationError(f"{generator.name}: none of {_TRIES} anatomies of patient {index} keeps the rules")


def broken_rules(anatomy: Anatomy, grid: Grid) -> tuple[str, ...]:
    """Return which rules an anatomy breaks."""
    from scipy.ndimage import distance_transform_edt

    broken = [f"{name} is empty" for name, mask in anatomy.masks.items() if not mask.any()]
    depth = distance_transform_edt(anatomy.masks["External"], grid.spacing[::-1])
    for target in anatomy.targets:
        mask = anatomy.masks[target]
        if mask.any() and depth[mask].min() < _SKIN:
            broken.append(f"{target} comes within {_SKIN:g} mm of the skin")
    organs = [name for name in anatomy.masks if name != "External" and not name.startswith(("PTV", "CTV", "GTV"))]
    for k, first in enumerate(organs):
        broken += [
            f"{first} and {n} overlap" for n in organs[k + 1 :] if (anatomy.masks[first] & anatomy.masks[n]).any()
        ]
    return tuple(broken)


def ellipsoid(
    points: Points,
    centre: tuple[float, float, float],
    axes: tuple[float, float, float],
    power: float = 2.0,
) -> Mask:
    """Return the inside of a superellipsoid ``sum |(x - c) / a|^p <= 1``."""
    total = sum(np.abs((x - c) / a) ** power for x, c, a in zip(points, centre, axes, strict=True))
    return np.asarray(total <= 1.0)


def trunk(points: Points, middle: float, width: float, depth: float, power: float) -> Mask:
    """Return the inside of a superelliptic cylinder along z of half axes `width` and `depth` [mm], at y `middle`."""
    x, y, _ = points
    return np.asarray((np.abs(x / width) ** power + np.abs((y - middle) / depth) ** power) <= 1.0)


def grown(mask: Mask, margin: float, grid: Grid) -> Mask:
    """Return a mask grown by a margin [mm]."""
    from scipy.ndimage import distance_transform_edt

    return np.asarray(distance_transform_edt(~mask, grid.spacing[::-1]) <= margin)


def _patient(generator: AnatomyGenerator, anatomy: Anatomy, index: int) -> Patient:
    grid = generator.grid
    parts = []
    for name, mask in anatomy.masks.items():
        role = "external" if name == "External" else "target" if name in anatomy.targets else "oar"
        if name.startswith(("CTV", "GTV")):
            role = "ignored"
        parts.append(Structure.from_mask(name, grid, mask, role=role))  # type: ignore[arg-type]
    hu = np.clip(anatomy.hu, -1024.0, 3000.0).astype(np.float32)
    return Patient(f"{generator.name}_{index:06d}", CT(grid, hu), Structures(parts))
