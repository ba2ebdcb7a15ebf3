"""Where things are: voxel grids, IEC 61217 beam frames, rays through volumes, and volumes moved between grids."""

from __future__ import annotations

from radplan.geometry.frames import beam_rotation, beam_to_world, isocentre_plane, source_position, world_to_beam
from radplan.geometry.grid import Grid
from radplan.geometry.rays import density_before, radiological_depth, surface_distance
from radplan.geometry.resample import overlap_matrix, resample_linear, resample_overlap

__all__ = [
    "Grid",
    "beam_rotation",
    "beam_to_world",
    "density_before",
    "isocentre_plane",
    "overlap_matrix",
    "radiological_depth",
    "resample_linear",
    "resample_overlap",
    "source_position",
    "surface_distance",
    "world_to_beam",
]
