"""The parts of an aperture model: per field its maps, per pose its share of the segments and its view of the voxels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from radplan.arrays import Array, Device
from radplan.beams.beam import Beam
from radplan.beams.control_points import Segment, TreatmentField
from radplan.engines.aperture.depths import DepthReader, WeightTable, plane_bounds
from radplan.engines.aperture.fluence import ApertureFluence
from radplan.engines.aperture.head import HeadScatter, MonitorBackScatter
from radplan.engines.aperture.maps import Axis, MapPair, Spectra
from radplan.engines.aperture.options import ApertureOptions
from radplan.engines.aperture.pose import PosePart
from radplan.engines.aperture.reader import PoseReader, Voxels
from radplan.engines.aperture.variables import WIDE, FieldLayout
from radplan.engines.photon.terms import Floats, PhotonScene, central_ssd
from radplan.errors import InputError
from radplan.geometry.frames import beam_rotation
from radplan.machines.base import KernelBasis
from radplan.machines.collimation import JAW_TRANSMISSION
from radplan.machines.mlc import MLC
from radplan.progress import each

Box = tuple[float, float, float, float]
Pose = tuple[float, ...]
Pieces = list[tuple[int, Floats]]

_COARSEST_RAYS = 3.0
"""Largest distance of the rays of a fan [mm]."""


def opening_box(layout: FieldLayout, margin: float) -> Box:
    """Return the rectangle (x1, x2, y1, y2) [mm] around all openings of a field, a margin added."""
    along, across = ((0, 1), (2, 3)) if layout.field.leaf_axis == "x" else ((2, 3), (0, 1))
    low, high = layout.boundaries[:-1], layout.boundaries[1:]
    spans = []
    for leaves, jaws in zip(layout.leaves, layout.jaws, strict=True):
        seen = (high > jaws[across[0]]) & (low < jaws[across[1]])
        opened = seen & (leaves[:, 1] - leaves[:, 0] > 1e-3)
        rows = opened if opened.any() else seen if seen.any() else np.ones_like(seen)
        x = np.clip([leaves[rows, 0].min(), leaves[rows, 1].max()], jaws[along[0]], jaws[along[1]])
        y = np.clip([low[rows].min(), high[rows].max()], jaws[across[0]], jaws[across[1]])
        spans.append(np.concatenate([x, y] if layout.field.leaf_axis == "x" else [y, x]))
    hull = np.asarray(spans)
    (x1, y1), (x2, y2) = hull[:, ::2].min(axis=0) - margin, hull[:, 1::2].max(axis=0) + margin
    if max(x2 - x1, y2 - y1) > WIDE:
        raise InputError(f"{layout.field.label}: neither leaves nor jaws bound it")
    return float(x1), float(x2), float(y1), float(y2)


def segment_poses(layout: FieldLayout, steps: int) -> dict[Pose, Pieces]:
    """Return gantry, couch, collimator and isocentre of every pose: segments, and the part of each given there."""
    poses: dict[Pose, Pieces] = {}
    for number in layout.delivering:
        segment = layout.field.segments[number]
        count = steps if _moves(segment) else 1
        for step in range(count):
            span = np.asarray([step, step + 1]) / count
            middle = float(span.mean())
            pose = (segment.gantry(middle), segment.couch(middle), segment.collimator(middle))
            poses.setdefault((*pose, *segment.isocenter(middle).tolist()), []).append((number, span))
    return poses


def _moves(segment: Segment) -> bool:
    """Say whether gantry, couch, collimator or isocentre are elsewhere in the middle of a segment than at its start."""
    turned = segment.gantry_travel != 0.0 or any(of(0.5) != of(0.0) for of in (segment.couch, segment.collimator))
    return turned or not np.array_equal(segment.isocenter(0.5), segment.isocenter(0.0))


class Builder:
    """Makes the parts of a model; what poses and fields share is made once."""

    def __init__(
        self, scene: PhotonScene, options: ApertureOptions, place: Device, dtype: str, patient_position: str
    ) -> None:
        self.scene, self.options, self.place, self.dtype = scene, options, place, dtype
        self.patient_position = patient_position
        self.pitch = min(options.pixel, scene.machine.source_sigma)
        self.spectra = Spectra(self.pitch, options.lateral_cutoff, place, dtype)
        spacing = options.ray_spacing or max(1.0, min(_COARSEST_RAYS, *scene.ct_grid.spacing))
        self.rim = _rim(scene.points)
        self.depths = DepthReader(scene, options.depths, spacing, self.rim)
        self._bases: list[tuple[KernelBasis, Voxels]] = []

    def parts(
        self, layouts: Sequence[FieldLayout], mlcs: Sequence[MLC | None], boxes: Sequence[Box]
    ) -> tuple[tuple[int, PosePart], ...]:
        """Return the parts of all fields."""
        poses = [segment_poses(layout, self.options.gantry_steps) for layout in layouts]
        sad, every = self.scene.machine.sad, [pose for one in poses for pose in one]
        bounds = {pose: plane_bounds(self.rim, self._rotation(pose), np.asarray(pose[3:]), sad) for pose in every}
        nearest, farthest = (np.asarray([one[end][2] for one in bounds.values()]) / sad for end in (0, 1))
        self.stretch = float(nearest.min()), float(farthest.max())
        parts = []
        fields = list(zip(layouts, mlcs, boxes, strict=True))
        for number, (layout, mlc, box) in enumerate(each("fields", fields)):
            seen = [bounds[pose] for pose in poses[number]]
            parts += [(number, part) for part in self._field(layout, mlc, box, poses[number], seen)]
        return tuple(parts)

    def _field(
        self, layout: FieldLayout, mlc: MLC | None, box: Box, poses: dict[Pose, Pieces],
        seen: list[tuple[Floats, Floats]],
    ) -> list[PosePart]:  # fmt: skip
        """Return the parts of a field: fluence, maps and profile are the same for all its poses."""
        machine, place = self.scene.machine, self.place
        low, high = np.min([one for one, _ in seen], axis=0), np.max([one for _, one in seen], axis=0)
        if "collimator" in self.options.free:
            far = float(np.max(np.hypot(np.maximum(-low, high)[0], np.maximum(-low, high)[1])))
            low, high = np.asarray([-far, -far, low[2]]), np.asarray([far, far, high[2]])
        axes = tuple(
            Axis.of((box[2 * i], box[2 * i + 1]), self.pitch, (low[i], high[i]), self.spectra.reach) for i in (0, 1)
        )
        x, y = axes[0].edges, axes[1].edges
        centres = 0.5 * (x[1:] + x[:-1]), 0.5 * (y[1:] + y[:-1])
        radius = np.hypot(centres[0][:, None], centres[1])
        profile = place.asarray(machine.fluence_profile(radius.ravel()).reshape(radius.shape), "float64")
        fluence, scatter = self._fluence(layout, mlc, x, y), self._scatter(x, y)
        made: list[tuple[KernelBasis, MapPair]] = []
        parts = []
        for pose, pieces in poses.items():
            rotation, centre = self._rotation(pose), np.asarray(pose[3:])
            basis, voxels = self._basis(pose, box)
            maps = [pair for known, pair in made if known is basis]
            if not maps:
                maps = [self.spectra.pair(basis, (axes[0], axes[1]))]
                made.append((basis, maps[0]))
            read = PoseReader(voxels, maps[0], rotation, centre, self.depths)
            parts.append(
                PosePart(
                    layout=layout, fluence=fluence, **self._shares(layout, pieces), profile=profile, maps=maps[0],
                    read=read.cached() if self.options.cache_depths else read, scatter=scatter,
                )
            )  # fmt: skip
        return parts

    def _rotation(self, pose: Pose) -> Floats:
        """Return the beam's axes in the patient as the patient lies."""
        return beam_rotation(pose[0], pose[1], pose[2], self.patient_position)

    def _basis(self, pose: Pose, box: Box) -> tuple[KernelBasis, Voxels]:
        """Return the kernel of a pose, and the voxels with its weights."""
        machine = self.scene.machine
        rim = np.asarray(
            [[x, y] for x in box[:2] for y in box[2:]] + [[0.5 * (box[0] + box[1]), 0.5 * (box[2] + box[3])]]
        )
        beam = Beam(
            pose[0], pose[1], pose[2], np.asarray(pose[3:]), sad=machine.sad, bixel_width=1.0, bixels=rim,
            patient_position=self.patient_position,
        )  # fmt: skip
        basis = machine.kernel.basis(central_ssd(beam, self.scene.density, self.scene.ct_grid))
        for known, voxels in self._bases:
            if known is basis:
                return known, voxels
        scaled = self.scene.density_scaling
        low, high = (0.0, 2.0) if scaled else self.stretch
        table = WeightTable.of(basis, low, high, scaled)
        straight = machine.distance == "ray"
        voxels = Voxels.of(self.scene.points, table, machine.sad, straight, self.place, self.dtype)
        self._bases.append((basis, voxels))
        return basis, voxels

    def _scatter(self, x: Floats, y: Floats) -> HeadScatter | None:
        head = self.scene.machine.head
        counted = self.options.head_scatter and head.scatter > 0
        return HeadScatter.between(head, x, y, self.place) if counted else None

    def _back_scatter(self, field: TreatmentField) -> MonitorBackScatter | None:
        if not self.options.back_scatter:
            return None
        head, point = self.scene.machine.head, field.points[0]
        there = point.jaws_x is not None, point.jaws_y is not None
        upper, lower, along_x = head.back_scatter_upper, head.back_scatter_lower, field.leaf_axis == "x"
        along, across = there if along_x else there[::-1]
        return MonitorBackScatter(upper, lower, upper_along=not along_x, along=along, across=across)

    def _fluence(self, layout: FieldLayout, mlc: MLC | None, x: Floats, y: Floats) -> ApertureFluence:
        along, across = (x, y) if layout.field.leaf_axis == "x" else (y, x)
        machine, jaws = self.scene.machine, self.options.jaw_transmission
        if jaws is None:
            known = machine.collimation.jaw_transmission
            jaws = JAW_TRANSMISSION if known is None else known
        ends = 0.0 if mlc is None else machine.collimation.leaf_end_sigma
        if isinstance(jaws, tuple) and layout.field.leaf_axis == "y":
            jaws = jaws[::-1]
        return ApertureFluence(
            along=self.place.asarray(along, "float64"),
            across=self.place.asarray(across, "float64"),
            boundaries=self.place.asarray(layout.boundaries.copy(), "float64"),
            sigma=(math.hypot(machine.source_sigma, ends), machine.source_sigma),
            leaf_offset=0.0 if mlc is None else mlc.leaf_offset,
            transmission=0.0 if mlc is None else mlc.transmission,
            jaw_transmission=jaws,
            softness=self.options.softness,
            back_scatter=self._back_scatter(layout.field),
            tongue_groove=mlc.tongue_groove if mlc is not None and self.options.tongue_and_groove else 0.0,
        )

    def _shares(self, layout: FieldLayout, pieces: Pieces) -> dict[str, Array]:
        """Return how openings and monitor units of a field enter the pieces of a pose."""
        ends = np.zeros((2, len(pieces), layout.leaves.shape[0]))
        portions = np.zeros((len(pieces), len(layout.delivering)))
        for row, (segment, span) in enumerate(pieces):
            for t, fraction in enumerate(span):
                ends[t, row, layout.openings[segment]] += 1.0 - fraction
                ends[t, row, layout.openings[segment + 1]] += fraction
            portions[row, layout.delivering.index(segment)] = span[1] - span[0]
        begin, end, mu = (self.place.asarray(a, "float64") for a in (ends[0], ends[1], portions))
        return {"begin": begin, "end": end, "portions": mu}


def _rim(points: Floats) -> Floats:
    """Return points ``(3, m)`` whose convex hull is that of points ``(n, 3)``: the ends of every row of voxels."""
    row_changes = np.flatnonzero(np.any(np.diff(points[:, 1:], axis=0) != 0.0, axis=1))
    ends = np.unique(np.concatenate([[0, points.shape[0] - 1], row_changes, row_changes + 1]))
    return np.ascontiguousarray(points[ends].T)
