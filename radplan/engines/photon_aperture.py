"""Photon dose of what a linac delivers: leaves, jaws and monitor units to dose, with a pullback by hand.

Segments that share gantry, collimator, couch and isocentre add their fluence on one map of the isocentre plane first;
a map becomes dose by one transform for each radial function of the kernel and one reading per voxel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy.fft

from radplan import arrays
from radplan.arrays import Array, Target, fast_length
from radplan.beams.beam import Beam
from radplan.beams.control_points import DeliveryPlan, TreatmentField
from radplan.engines.aperture_fluence import ApertureFluence
from radplan.engines.aperture_head import HeadScatter, MonitorBackScatter
from radplan.engines.aperture_pose import PosePart
from radplan.engines.aperture_variables import WIDE, ApertureVariables, FieldLayout, aperture_variables
from radplan.engines.map_gather import MARGIN, MapGather, spline_response
from radplan.engines.photon_terms import BeamRays, PhotonScene
from radplan.errors import InputError, UnknownNameError
from radplan.geometry.grid import Grid
from radplan.influence import Scenarios
from radplan.machines.base import KernelBasis
from radplan.machines.mlc import MLC, matching_mlc
from radplan.machines.photon import PhotonMachine
from radplan.patient.patient import Patient

Floats = npt.NDArray[np.float64]
Box = tuple[float, float, float, float]

_TABLE_PITCH = 0.5
"""Largest pixel on which kernels are integrated before they are transformed [mm]."""


@dataclass(frozen=True)
class ApertureOptions:
    """How dose of apertures is calculated.

    Parameters
    ----------
    pixel : float
        Largest pixel of the maps [mm]; never larger than the standard deviation of the source.
    lateral_cutoff : float, optional
        Radius of the kernel in the isocentre plane [mm]; the machine's when left out.
    margin : float
        How far beyond the plan's openings fluence is calculated and jaws may go [mm].
    jaw_transmission : float
        Fluence behind jaws over open fluence, in [0, 1).
    softness : float
        Length over which a jaw takes over from a leaf [mm], > 0.
    gantry_steps : int
        Gantry positions that a segment with a turning gantry is calculated at, >= 1.
    head_scatter, back_scatter, tongue_and_groove : bool
        Whether the machine's head scatter and monitor back-scatter, and the collimator's interlocking, are counted.
    density_scaling : bool
        Whether the kernel is wider where density is low, see `radplan.engines.photon_terms.widened_weights`.

    Raises
    ------
    InputError
        When an option is out of its range.

    >>> ApertureOptions().pixel
    1.0
    """

    pixel: float = 1.0
    lateral_cutoff: float | None = None
    margin: float = 20.0
    jaw_transmission: float = 0.004
    softness: float = 0.2
    gantry_steps: int = 1
    head_scatter: bool = True
    back_scatter: bool = True
    tongue_and_groove: bool = True
    density_scaling: bool = False

    def __post_init__(self) -> None:
        for name in ("pixel", "margin", "softness", "gantry_steps"):
            if not (self.__dict__[name] > 0 and math.isfinite(self.__dict__[name])):
                raise InputError(f"{name} must be > 0 and finite, got {self.__dict__[name]}")
        if self.lateral_cutoff is not None and not self.lateral_cutoff > 0:
            raise InputError(f"lateral_cutoff must be > 0 mm, got {self.lateral_cutoff}")
        if not 0 <= self.jaw_transmission < 1:
            raise InputError(f"jaw_transmission must lie in [0, 1), got {self.jaw_transmission}")


@dataclass(frozen=True, eq=False)
class ApertureModel:
    """A forward model whose variables are leaf ends, jaws and monitor units; make it with `aperture_model`.

    Dose per fraction in Gy. The order of the variables is that of `radplan.engines.aperture_variables`. Fluence is
    calculated in float64 where the device has it, maps and voxels in the model's dtype.

    Parameters
    ----------
    layouts : tuple of FieldLayout
        Where the variables of every field lie.
    parts : tuple of (int, PosePart)
        The field's position in `layouts`, and what it delivers from one pose.
    grid : Grid
        The dose grid.
    voxels : array of shape (n,)
        Sorted flat indices into the grid.
    variables : ApertureVariables
        Bounds, start and projection.
    target : Target
        Where it runs.
    dtype : str
        ``"float32"`` or ``"float64"``.
    voxel_parameters : mapping of str to array
        Arrays ``(1, n)`` on the device.
    machine : str
        Name of the linac model.
    """

    layouts: tuple[FieldLayout, ...]
    parts: tuple[tuple[int, PosePart], ...]
    grid: Grid
    voxels: Any
    variables: ApertureVariables
    target: Target
    dtype: str
    voxel_parameters: Mapping[str, Array] = field(default_factory=dict)
    machine: str = ""

    images: tuple[str, ...] = ("physical_dose",)
    radiation: str = "photons"
    linear: bool = False
    scenarios: Scenarios = field(default_factory=Scenarios.nominal)

    def forward(self, x: Array, images: Iterable[str] | None = None) -> dict[str, Array]:
        """Return the images asked for, ``(1, voxels)`` each, at variables ``x (count,)``."""
        return {name: self._dose(x)[None, ...] for name in self._known(self.images if images is None else images)}

    def pullback(self, x: Array, cotangents: Mapping[str, Array]) -> Array:
        """Return the gradient ``(count,)`` for cotangents on images, in float64 where the device has it."""
        place, xp = self.target, self.target.xp
        wide = self._wide(x)
        sizes = [layout.mu_slice.stop - layout.offset for layout in self.layouts]
        totals = [xp.zeros(size, dtype=wide.dtype, device=place.device) for size in sizes]
        for name in self._known(cotangents):
            values = arrays.like(cotangents[name], wide, place.dtype(self.dtype))[0, ...]
            for number, part in self.parts:
                totals[number] = part.add_pullback(wide, values, totals[number])
        return xp.concat(totals)

    def field_fluence(self, x: Array, number: int) -> list[Array]:
        """Return the fluence ``(nx, ny)`` [MU] of each pose of a field from 0, without head scatter and profile."""
        wide = self._wide(x)
        return [part.total_fluence(wide) for found, part in self.parts if found == number]

    def restrict(self, voxels: Array) -> ApertureModel:
        """Return the model of some voxels only: sorted flat indices into the grid, each one of this model's."""
        chosen = np.asarray(voxels, dtype=np.int64)
        rows = np.clip(np.searchsorted(self.voxels, chosen), 0, self.voxels.size - 1)
        if chosen.size == 0 or np.any(np.diff(chosen) <= 0) or np.any(self.voxels[rows] != chosen):
            raise InputError("voxels to restrict to must be sorted, without repeats, and voxels of this model")
        index = self.target.asarray(rows, "int64")
        return replace(
            self,
            parts=tuple((number, replace(part, read=part.read.restrict(rows))) for number, part in self.parts),
            voxels=chosen,
            voxel_parameters={
                name: self.target.xp.take(values, index, axis=1) for name, values in self.voxel_parameters.items()
            },
        )

    def with_voxel_parameters(self, **parameters: Array) -> ApertureModel:
        """Return the model with more voxel parameters, ``(n,)``, ``(1, n)`` or a number each."""
        added = {}
        for name, values in parameters.items():
            host = np.atleast_2d(arrays.to_numpy(values)).astype(self.dtype)
            if host.shape not in ((1, 1), (1, self.voxels.size)):
                raise InputError(f"voxel parameter {name!r} must have shape (1, {self.voxels.size}), got {host.shape}")
            added[name] = self.target.asarray(np.broadcast_to(host, (1, self.voxels.size)).copy(), self.dtype)
        return replace(self, voxel_parameters={**self.voxel_parameters, **added})

    def _dose(self, x: Array) -> Array:
        place, wide = self.target, self._wide(x)
        total = place.xp.zeros(self.voxels.size, dtype=place.dtype(self.dtype), device=place.device)
        for _, part in self.parts:
            total = total + part.dose(wide)
        return total

    def _wide(self, x: Array) -> Array:
        if x.shape != (self.variables.count,):
            raise InputError(f"x must have shape ({self.variables.count},), got {tuple(x.shape)}")
        return self.target.xp.astype(x, arrays.accumulator(x))

    def _known(self, names: Iterable[str]) -> list[str]:
        for name in (found := list(names)):
            if name not in self.images:
                raise UnknownNameError("image", name, self.images)
        return found


def aperture_model(
    patient: Patient,
    plan: DeliveryPlan | Sequence[TreatmentField],
    machine: PhotonMachine,
    mlc: MLC | None = None,
    grid: float | tuple[float, float, float] | Grid = 5.0,
    options: ApertureOptions | None = None,
    device: str = "numpy",
    dtype: str = "float32",
    voxels: Literal["body"] | npt.ArrayLike = "body",
) -> ApertureModel:
    """Return the forward model of leaves, jaws and monitor units of a plan, beginning at the plan as it stands.

    Parameters
    ----------
    patient : Patient
        CT and structures.
    plan : DeliveryPlan or sequence of TreatmentField
        Fields as the linac delivers them; `radplan.io.dicom.read_plan` reads them.
    machine : PhotonMachine
        A linac with monitor units.
    mlc : MLC, optional
        Transmission, leaf offset and limits; the known collimator with the plan's leaf boundaries when left out.
    grid : float, (float, float, float) or Grid
        The dose grid, or its spacing [mm].
    options : ApertureOptions, optional
        Pixels, cut-off and so on.
    device, dtype : str
        Where it runs, and ``"float32"`` or ``"float64"``.
    voxels : "body" or array of shape (n,)
        The rows: the external contour grown by one voxel, or sorted flat indices into the grid.

    Raises
    ------
    InputError
        When the machine has no monitor units or no extended source, or plan, machine and collimator do not agree.
    """
    chosen, place, fields = ApertureOptions() if options is None else options, arrays.target(device), tuple(plan)
    if dtype not in ("float32", "float64"):
        raise InputError(f"dtype must be 'float32' or 'float64', got {dtype!r}")
    mlcs = [_checked(one, machine, mlc) for one in fields]
    if not fields:
        raise InputError("the plan has no fields")
    dose_grid = grid if isinstance(grid, Grid) else patient.ct.grid.with_spacing(grid)
    rows = patient.body_voxels(dose_grid) if isinstance(voxels, str) else np.asarray(voxels, dtype=np.int64)
    if (isinstance(voxels, str) and voxels != "body") or rows.size == 0 or np.any(np.diff(rows) <= 0):
        raise InputError("voxels must be 'body' or sorted flat grid indices (n,) without repeats")
    layouts: list[FieldLayout] = []
    for one in fields:
        layouts.append(FieldLayout.of(one, layouts[-1].mu_slice.stop if layouts else 0))
    boxes = [_box(layout, chosen.margin) for layout in layouts]
    scene = PhotonScene.of(patient, machine, dose_grid, rows, chosen.density_scaling)
    made = _Builder(scene, chosen, place, dtype)
    parameters = {**patient.voxel_parameters(dose_grid, rows), "rbe": np.ones((1, rows.size))}
    return ApertureModel(
        layouts=tuple(layouts),
        parts=made.parts(layouts, mlcs, boxes),
        grid=dose_grid,
        voxels=rows,
        variables=aperture_variables(layouts, mlcs, boxes),
        target=place,
        dtype=dtype,
        voxel_parameters={name: place.asarray(values, dtype) for name, values in parameters.items()},
        machine=machine.name,
    )


def _checked(one: TreatmentField, machine: PhotonMachine, mlc: MLC | None) -> MLC | None:
    """Return the collimator of a field, after a check that it belongs to the machine and the plan."""
    if machine.reference is None:
        raise InputError(f"machine {machine.name!r} has no monitor units: apertures need a machine with a reference")
    if machine.source_sigma < 0.1:
        raise InputError(f"machine {machine.name!r}: apertures need a source, got source_fwhm {machine.source_fwhm} mm")
    if abs(one.sad - machine.sad) > 0.5:
        raise InputError(f"{one.label}: has SAD {one.sad:g} mm, but machine {machine.name!r} {machine.sad:g} mm")
    if one.leaf_boundaries is None:
        return None
    if mlc is None:
        return matching_mlc(one.leaf_boundaries)
    if not mlc.fits(one.leaf_boundaries):
        raise InputError(
            f"{one.label}: has {one.leaf_boundaries.size - 1} leaf pairs from {one.leaf_boundaries[0]:g} mm, but MLC "
            f"{mlc.name!r} has {mlc.pairs} from {mlc.boundaries[0]:g} mm"
        )
    return mlc


def _box(layout: FieldLayout, margin: float) -> Box:
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


class _Builder:
    """Makes the parts of a model; kernel spectra are made once for each size of map."""

    def __init__(self, scene: PhotonScene, options: ApertureOptions, place: Target, dtype: str) -> None:
        self.scene, self.options, self.place, self.dtype = scene, options, place, dtype
        machine = scene.machine
        cutoff = machine.lateral_cutoff if options.lateral_cutoff is None else options.lateral_cutoff
        self.cutoff = cutoff
        self.pitch = min(options.pixel, machine.source_sigma)
        self.border = math.ceil(cutoff / self.pitch) + MARGIN + 2
        self._spectra: list[tuple[KernelBasis, tuple[int, int], Array]] = []

    def parts(
        self, layouts: Sequence[FieldLayout], mlcs: Sequence[MLC | None], boxes: Sequence[Box]
    ) -> tuple[tuple[int, PosePart], ...]:
        """Return the parts of all fields."""
        return tuple(
            (number, self._part(layout, mlc, box, pose, pieces))
            for number, (layout, mlc, box) in enumerate(zip(layouts, mlcs, boxes, strict=True))
            for pose, pieces in _poses(layout, self.options.gantry_steps).items()
        )

    def _part(
        self, layout: FieldLayout, mlc: MLC | None, box: Box, pose: tuple[float, ...], pieces: list[tuple[int, Floats]]
    ) -> PosePart:
        machine, pitch, place = self.scene.machine, self.pitch, self.place
        size = [math.ceil((box[2 * i + 1] - box[2 * i]) / pitch - 1e-9) for i in (0, 1)]
        x, y = (np.asarray(box[2 * i] + pitch * np.arange(size[i] + 1), dtype=np.float64) for i in (0, 1))
        corners = [[x[i], y[j]] for i in (0, -1) for j in (0, -1)]
        middle = [[0.5 * (x[0] + x[-1]), 0.5 * (y[0] + y[-1])]]
        rim, centre = np.asarray(corners + middle), np.asarray(pose[3:])
        beam = Beam(pose[0], pose[1], pose[2], centre, sad=machine.sad, bixel_width=pitch, bixels=rim)
        rays = BeamRays.of(beam, self.scene, self.cutoff)
        shape = fast_length(size[0] + 2 * self.border), fast_length(size[1] + 2 * self.border)
        at = [
            (plane[rays.rows] - edge[0]) / pitch - 0.5 + self.border
            for plane, edge in ((rays.x, x), (rays.y, y))
        ]  # fmt: skip
        centres = 0.5 * (x[1:] + x[:-1]), 0.5 * (y[1:] + y[:-1])
        radius = np.hypot(centres[0][:, None], centres[1])
        return PosePart(
            layout=layout,
            fluence=self._fluence(layout, mlc, x, y),
            **self._shares(layout, pieces),
            profile=place.asarray(machine.fluence_profile(radius.ravel()).reshape(radius.shape), "float64"),
            transfer=self._transfer(rays.basis, shape),
            read=MapGather.of(at[0], at[1], rays.weights, rays.rows, rays.x.size, shape, "cubic", place, self.dtype),
            border=self.border,
            scatter=self._scatter((size[0], size[1])),
        )

    def _scatter(self, shape: tuple[int, int]) -> HeadScatter | None:
        head = self.scene.machine.head
        counted = self.options.head_scatter and head.scatter > 0
        return HeadScatter.of(head, shape, self.pitch, self.place) if counted else None

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
        return ApertureFluence(
            along=self.place.asarray(along, "float64"),
            across=self.place.asarray(across, "float64"),
            boundaries=self.place.asarray(layout.boundaries.copy(), "float64"),
            sigma=self.scene.machine.source_sigma,
            leaf_offset=0.0 if mlc is None else mlc.leaf_offset,
            transmission=0.0 if mlc is None else mlc.transmission,
            jaw_transmission=self.options.jaw_transmission,
            softness=self.options.softness,
            back_scatter=self._back_scatter(layout.field),
            tongue_groove=mlc.tongue_groove if mlc is not None and self.options.tongue_and_groove else 0.0,
        )

    def _shares(self, layout: FieldLayout, pieces: list[tuple[int, Floats]]) -> dict[str, Array]:
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

    def _transfer(self, basis: KernelBasis, shape: tuple[int, int]) -> Array:
        """Return the spectra of the radial functions on a map, of pixel averages to what a cubic spline reads."""
        for known, size, held in self._spectra:
            if known is basis and size == shape:
                return held
        fine = math.ceil(self.pitch / _TABLE_PITCH - 1e-9)
        step = self.pitch / fine
        raster = np.asarray(basis.raster(step, self.cutoff + step), dtype=np.float64)
        reach = raster.shape[1] // 2
        axis = np.arange(-reach, reach + 1) * step
        raster = raster * np.clip((self.cutoff - np.hypot(axis[:, None], axis)) / step + 0.5, 0.0, 1.0)
        padded = np.zeros((raster.shape[0], shape[0] * fine, shape[1] * fine))
        padded[:, : raster.shape[1], : raster.shape[2]] = raster
        spectra = scipy.fft.rfftn(np.roll(padded, (-reach, -reach), axis=(1, 2)), axes=(1, 2)).real
        first, second = np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])
        rows = np.round(first * shape[0]).astype(np.int64) % (shape[0] * fine)
        spectra = spectra[:, rows, : second.size]
        for frequency, place in ((first, (slice(None), None)), (second, (None, slice(None)))):
            averaged = np.sinc(frequency / fine) * np.sinc(frequency) * spline_response(frequency, "cubic")
            spectra = spectra / averaged[place]
        made = self.place.asarray(spectra, self.dtype)
        self._spectra.append((basis, shape, made))
        return made


def _poses(layout: FieldLayout, steps: int) -> dict[tuple[float, ...], list[tuple[int, Floats]]]:
    """Return gantry, couch, collimator and isocentre of every pose: segments, and the part of each given there."""
    poses: dict[tuple[float, ...], list[tuple[int, Floats]]] = {}
    for number in layout.delivering:
        segment = layout.field.segments[number]
        count = steps if segment.gantry_travel else 1
        for step in range(count):
            span = np.asarray([step, step + 1]) / count
            middle = float(span.mean())
            pose = (segment.gantry(middle), segment.couch(middle), segment.collimator(middle))
            poses.setdefault((*pose, *segment.isocenter(middle).tolist()), []).append((number, span))
    return poses
