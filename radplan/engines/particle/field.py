"""One beam of spots as the pencil-beam kernels read it: voxels in reach, rays, spots and depth tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radplan.beams.beam import Beam
from radplan.engines.particle.fine_sampling import Paths, split, strayed
from radplan.engines.particle.spots import Scene, Spots
from radplan.engines.particle.tables import PER_MM, DepthTables
from radplan.geometry.frames import isocentre_plane, world_to_beam
from radplan.geometry.rays import radiological_depth
from radplan.kernels.spots import DOUBLE, ELLIPTIC, SINGLE, SpotField

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_BLOCKS = 128
"""Blocks of rows that threads share; fixed, so that results do not depend on the number of threads."""


@dataclass(frozen=True, eq=False)
class BeamField:
    """One beam, ready for the kernels.

    Parameters
    ----------
    field : SpotField
        What the kernels read.
    rows : array of shape (m,)
        The model's row of each voxel of the field, int32, ascending.
    count : int
        Number of the beam's columns.
    """

    field: SpotField
    rows: npt.NDArray[np.int32]
    count: int

    @property
    def fine(self) -> bool:
        """Whether several sub-beamlets share a column."""
        return bool(self.field.tracks.size > 0)

    @classmethod
    def of(cls, beam: Beam, scene: Scene) -> BeamField:
        """Return the field of a beam."""
        spots = Spots.of(beam, scene)
        paths = Paths.none(spots.x.size)
        if scene.fine_sampling is not None:
            spots = split(spots, scene.fine_sampling, beam.bixel_width)
            paths = Paths.of(beam, spots, scene)
        tables = DepthTables.of(
            scene.machine, spots.layers, spots.widest(_farthest(beam, scene)), scene.cutoff, scene.images, scene.tissues
        )
        envelope = tables.envelope(np.stack([-spots.largest(-spots.shifts), spots.largest(spots.shifts)], axis=1))
        if scene.fine_sampling is not None:
            # Why: depths differ from path to path, and paths that run parallel are sorted where they were split.
            envelope = envelope.max(keepdims=True)
        envelope = envelope + strayed(beam, spots, scene)
        rows, points, depths = _reached(beam, scene, spots, envelope)
        caps = spots.caps(tables.largest_reach()) if scene.cutoff.caps_rays else np.full(spots.x.size, np.inf)
        field = SpotField(
            points=points,
            depths=depths,
            tissues=scene.tissues.index[rows],
            edges=blocks(rows.size),
            sad=float(scene.machine.sad),
            envelope=envelope,
            ray_x=spots.x,
            ray_y=spots.y,
            rays=spots.directions,
            origins=spots.origins,
            caps=caps,
            tracks=paths.depths,
            track_of=paths.of_ray,
            track_start=paths.start,
            track_step=paths.step,
            ray_spots=spots.first,
            columns=spots.columns,
            energies=spots.energies,
            shifts=spots.shifts,
            variances=spots.variances,
            shares=spots.shares,
            knots=tables.knots,
            table=tables.table,
            starts=tables.starts,
            ends=tables.knots[tables.starts[1:] - 1],
            bins=tables.bins,
            bin_starts=tables.bin_starts,
            per_mm=PER_MM,
            model={"single": SINGLE, "double": DOUBLE, "elliptic": ELLIPTIC}[scene.images.lateral],
            factors=scene.images.factors(scene.tissues.count),
            thresholds=scene.images.thresholds(),
        )
        return cls(field, rows, beam.count)


def blocks(voxels: int) -> Ints:
    """Return where the blocks of a number of voxels begin, and their end."""
    return np.linspace(0, voxels, _BLOCKS + 1).astype(np.int64)


def _farthest(beam: Beam, scene: Scene) -> float:
    """Return how far behind the isocentre the last voxel lies [mm]."""
    return float(np.max((beam.isocenter - scene.points) @ beam.rotation[:, 2], initial=0.0))


def _reached(beam: Beam, scene: Scene, spots: Spots, envelope: Floats) -> tuple[npt.NDArray[np.int32], Floats, Floats]:
    """Return the voxels in the patient that spots can reach, seen from the source, and their radiological depths."""
    sad = scene.machine.sad
    local = world_to_beam(scene.points, beam.isocenter, beam.rotation)
    x, y, axial = isocentre_plane(local, sad)
    room = float(envelope.max()) * sad / np.maximum(axial, 1.0) * 1.05
    near = (x >= spots.x.min() - room) & (x <= spots.x.max() + room)
    near &= (y >= spots.y.min() - room) & (y <= spots.y.max() + room) & (axial > 0.0)
    rows = np.flatnonzero(near)
    depths = np.asarray(radiological_depth(scene.density, scene.ct_grid, beam.source, scene.points[rows]))
    met = depths > 0.0
    depths = scene.error.depths(depths)
    # Why: sub-beamlets may reach voxels that lie too deep along their own ray from the source.
    inside = met & ((depths < envelope.size) | (scene.fine_sampling is not None))
    rows, depths = rows[inside], depths[inside]
    seen = np.column_stack([local[rows, 0], local[rows, 1], sad - local[rows, 2]])
    return rows.astype(np.int32), seen, depths
