"""Photons of a delivered plan for a Monte Carlo: from the fluence in the isocentre plane, as seen from the source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radplan.engines.aperture.model import ApertureModel
from radplan.errors import InputError
from radplan.geometry.frames import source_position

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FluenceMap:
    """What a pose lets through, in the isocentre plane.

    Parameters
    ----------
    x, y : array of shape (nx + 1,), (ny + 1,)
        Edges of the pixels [mm].
    fluence : array of shape (nx, ny)
        Fluence, head scatter and off-axis profile included [MU].
    rotation : array of shape (3, 3)
        The beam's axes in the world.
    isocenter : array of shape (3,)
        World position [mm].
    sad : float
        Source-axis distance [mm].
    """

    x: Floats
    y: Floats
    fluence: Floats
    rotation: Floats
    isocenter: Floats
    sad: float

    @property
    def photons(self) -> Floats:
        """Fluence times the area of each pixel (nx, ny) [MU mm2]."""
        return np.maximum(self.fluence, 0.0) * np.diff(self.x)[:, None] * np.diff(self.y)


def fluence_maps(model: ApertureModel, x: npt.ArrayLike, sad: float) -> tuple[FluenceMap, ...]:
    """Return the fluence of every pose of an aperture model at its variables."""
    values = np.asarray(x, dtype=np.float64)
    return tuple(
        FluenceMap(
            part.maps.axes[0].edges,
            part.maps.axes[1].edges,
            np.asarray(part.seen_fluence(values), dtype=np.float64),
            part.read.rotation,
            part.read.isocenter,
            sad,
        )
        for _, part in model.parts
    )


def sampled_photons(maps: Sequence[FluenceMap], count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return where photons start and where they go, (count, 3) [mm] and (count, 3), drawn by fluence and area.

    Raises
    ------
    InputError
        When no map lets anything through.
    """
    totals = np.asarray([float(one.photons.sum()) for one in maps])
    if not totals.sum() > 0:
        raise InputError("the plan lets no photons through: are all monitor units 0?")
    shares = rng.multinomial(count, totals / totals.sum())
    places, ways = [], []
    for one, number in zip(maps, shares, strict=True):
        if number == 0:
            continue
        cumulated = np.cumsum(one.photons.ravel())
        pixel = np.searchsorted(cumulated, rng.random(number) * cumulated[-1], side="right")
        i, j = np.divmod(np.minimum(pixel, cumulated.size - 1), one.fluence.shape[1])
        u = one.x[i] + rng.random(number) * np.diff(one.x)[i]
        v = one.y[j] + rng.random(number) * np.diff(one.y)[j]
        start = source_position(one.isocenter, one.rotation, one.sad)
        target = one.isocenter + u[:, None] * one.rotation[:, 0] + v[:, None] * one.rotation[:, 1]
        way = target - start
        places.append(np.broadcast_to(start, way.shape))
        ways.append(way / np.linalg.norm(way, axis=1, keepdims=True))
    order = rng.permutation(count)
    return np.concatenate(places)[order], np.concatenate(ways)[order]
