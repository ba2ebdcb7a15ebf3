"""The photon pencil-beam engine: a low-rank kernel in isocentre-plane coordinates, stored as a sparse matrix."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from radplan.arrays import Array, Device
from radplan.beams.beam import Beam, Beams
from radplan.engines.base import ENGINES, Engine, Machine, check_options
from radplan.engines.photon.fluence_dose import MapOptions, fluence_dose
from radplan.engines.photon.map_gather import SPLINES, Interpolation
from radplan.engines.photon.terms import BeamRays, PhotonScene, bixel_table, scales_with_density
from radplan.engines.scope import Scope
from radplan.errors import CalculationError, InputError
from radplan.influence import Dij, Variables
from radplan.kernels.threads import one_blas_thread
from radplan.machines.base import KernelBasis
from radplan.machines.photon import PhotonMachine
from radplan.operators import BlockRows, LinearOperator, SparseOperator, sparse_images
from radplan.patient.patient import Patient
from radplan.progress import each

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_PIECES = 256
"""Blocks of rows that threads share; fixed, so that a matrix does not depend on the number of threads."""

_SAME_PLACE = 1e-6
"""Distance below which positions of bixels count as equal [mm]."""


@ENGINES.register
@dataclass(frozen=True)
class PhotonPencilBeam(Engine):
    r"""Photon pencil beams, stored or on the fly: dose of unit bixels on exact radiological depths.

    A bixel at :math:`(x_j, y_j)` in the isocentre plane gives a voxel that its ray crosses there at (x, y)

    .. math:: D_{vj} = \psi_j \left(\frac{SAD}{L}\right)^2 \sum_k w_k(t, L/SAD)
              \, (g_k * G_\sigma * \sqcap)(x - x_j, y - y_j)

    with the radiological depth t from the source (Siddon), the distance L (along the axis, or the straight line for
    matRad machines), the machine's radial functions :math:`g_k` and weights :math:`w_k`, its Gaussian source
    :math:`G_\sigma`, the square bixel and the in-air profile :math:`\psi_j` at the bixel. The blurred radial functions
    are tabulated on square pixels and interpolated bilinearly. Entries farther from the bixel than
    ``lateral_cutoff + bixel_width / sqrt(2)`` in the isocentre plane are left out.

    With ``stored=False`` the same sum is taken over the bixels first, see `radplan.engines.photon.fluence_dose`: no
    matrix is held, and time and memory do not grow with the number of bixels.

    Parameters
    ----------
    lateral_cutoff : float, optional
        Distance from a bixel's corner in the isocentre plane up to which its dose is stored [mm], > 0; the machine's
        when left out: 75 mm for those of radplan, 50 mm for matRad's. What it leaves out, for five 6 MV beams on the
        TG119 target: at 50 mm 1.1 % of the target's mean dose, at 75 mm 0.1 % with twice the entries, at 100 mm
        nothing with 3.4 times as many.
    pixel : float
        Largest pixel of the tables [mm]; the bixel width is a whole number of pixels.
    map_pixel : float
        On the fly: largest pixel of the maps that voxels are read from [mm].
    interpolation : "cubic" or "linear"
        On the fly: how the maps are read, by interpolating B-splines of order 3 or 1.
    density_scaling : bool, optional
        Whether the kernel is wider where density is low, see `radplan.engines.photon.terms.widened_weights`. In lung
        it lowers the dose of small fields, by up to 18 % for 3x3 at 6 MV; needs one of radplan's own machines. Left
        out, it is on where the patient has a lung contoured and the machine allows it.

    Raises
    ------
    InputError
        When an option is not positive or the interpolation is unknown; from `influence`, when the machine's kernel
        cannot be scaled with density.

    Notes
    -----
    Source: Nyholm et al., Radiother. Oncol. 78 (2006) 347; Bortfeld, Schlegel, Rhein, Med. Phys. 20 (1993) 311 for
    the sum of separable terms; matRad 3.2.2 for the cut-off of 50 mm.

    >>> from radplan.machines import library_machine
    >>> round(PhotonPencilBeam().radius(5.0, library_machine("generic_photon_6mv")), 3)
    78.536
    """

    lateral_cutoff: float | None = None
    pixel: float = 0.5
    map_pixel: float = 1.0
    interpolation: Interpolation = "cubic"
    density_scaling: bool | None = None

    name: ClassVar[str] = "photon_pencil_beam"
    radiation: ClassVar[tuple[str, ...]] = ("photons",)

    def __post_init__(self) -> None:
        check_options(self, ("lateral_cutoff", "pixel", "map_pixel"), ("density_scaling",))
        if self.interpolation not in SPLINES:
            raise InputError(f"interpolation must be 'cubic' or 'linear', got {self.interpolation!r}")

    @classmethod
    def examples(cls) -> list[Self]:
        return [cls(), cls(lateral_cutoff=30.0), cls(density_scaling=True)]

    def radius(self, bixel_width: float, machine: PhotonMachine) -> float:
        """Return the distance from a bixel's centre up to which its dose is stored [mm]."""
        cutoff = machine.lateral_cutoff if self.lateral_cutoff is None else self.lateral_cutoff
        return cutoff + bixel_width / math.sqrt(2.0)

    def images_for(self, machine: Machine) -> tuple[str, ...]:
        return ("physical_dose",)

    def resolved(self, patient: Patient, machine: Machine) -> Self:
        scaled = scales_with_density(patient, self._checked(machine), self.density_scaling)
        return replace(self, density_scaling=scaled)

    def influence(self, patient: Patient, beams: Beams, machine: Machine, scope: Scope) -> Dij:
        linac = self._checked(machine)
        scene = PhotonScene.of(patient, linac, scope, self.density_scaling)
        operator: LinearOperator
        with one_blas_thread():
            if scope.stored:
                operator = self._matrix(beams, scene, scope.device, scope.dtype)
            else:
                options = MapOptions(self.map_pixel, self.pixel, self.interpolation)
                radii = [self.radius(beam.bixel_width, linac) for beam in beams]
                operator = fluence_dose(beams, scene, radii, options, scope.device, scope.dtype)
        return Dij(
            operators={"physical_dose": (operator,)},
            rows=scope.rows(patient, rbe=1.0),
            radiation="photons",
            variables=Variables(beams.count, labels=("bixel weight",)),
            beam_index=beams.beam_index,
            beams=beams,
            machine=machine.name,
        )

    def _matrix(self, beams: Beams, scene: PhotonScene, device: Device, dtype: str) -> SparseOperator:
        tables, parts = _Tables(scene.machine, self.pixel), []
        for number, beam in enumerate(each("influence", tuple(beams), "ray tracing")):
            parts.append(_BeamPart.of(beam, scene, tables, self.radius(beam.bixel_width, scene.machine)))
            logger.info("beam %d of %d: %d bixels", number + 1, len(beams), beam.count)
        return _assemble(parts, scene.points.shape[0], device, dtype)

    def _checked(self, machine: Machine) -> PhotonMachine:
        if not isinstance(machine, PhotonMachine):
            raise InputError(f"the engine {self.name!r} needs a PhotonMachine, got {type(machine).__name__}")
        return machine


@dataclass(frozen=True, eq=False)
class _Runs:
    """Bixels of a beam as rows of neighbours with consecutive columns; see `radplan.kernels.pencil_beam`.

    Parameters
    ----------
    axis : int
        The coordinate that grows along a run: 0 or 1 for x or y.
    starts : array of shape (r, 2)
        First bixels, (across, along) [mm].
    firsts, sizes : arrays of shape (r,)
        Their columns, and how many bixels follow one another.
    groups : array of shape (g + 1,)
        Where groups begin: runs that follow one another and lie on one lattice of bixel widths.
    origins : array of shape (g, 2)
        Position of each lattice's place (0, 0) [mm].
    places : array of shape (r, 2)
        Row and column of the first bixels in the lattice, >= 0.
    """

    axis: int
    starts: Floats
    firsts: Ints
    sizes: Ints
    groups: Ints
    origins: Floats
    places: Ints

    @classmethod
    def of(cls, bixels: Floats, step: float) -> _Runs:
        """Return the runs along x or along y, whichever are fewer."""
        along_y, along_x = (_first_of_runs(bixels[:, [1 - axis, axis]], step) for axis in (1, 0))
        axis, firsts = (1, along_y) if along_y.size <= along_x.size else (0, along_x)
        starts = np.ascontiguousarray(bixels[firsts][:, [1 - axis, axis]])
        sizes = np.diff(np.append(firsts, bixels.shape[0]))
        steps = np.diff(starts, axis=0) / step
        leaves = np.any(np.abs(steps - np.round(steps)) * step > _SAME_PLACE, axis=1)
        begins = np.flatnonzero(np.concatenate([[True], leaves]))
        group = np.cumsum(np.concatenate([[True], leaves])) - 1
        origins = np.minimum.reduceat(starts, begins, axis=0)
        places = np.round((starts - origins[group]) / step).astype(np.int64)
        return cls(axis, starts, firsts, sizes, np.append(begins, firsts.size), origins, places)


def _first_of_runs(positions: Floats, step: float) -> Ints:
    """Return the bixels, positions (across, along) [mm], that do not follow the one before by a step along."""
    across, along = np.diff(positions, axis=0).T
    goes_on = (np.abs(across) < _SAME_PLACE) & (np.abs(along - step) < _SAME_PLACE)
    return np.flatnonzero(np.concatenate([[True], ~goes_on])).astype(np.int64)


@dataclass(frozen=True, eq=False)
class _Table:
    """A bixel table in the order the compiled build reads: (function, phases, row, column) flat, float32."""

    values: Array
    layout: Array
    pitch: float
    reach: float

    @classmethod
    def of(cls, blurred: Floats, pitch: float, phases: int, axis: int) -> _Table:
        """Return a table against (bixel - voxel), cut so that every `phases`-th pixel is a neighbour."""
        from radplan.kernels.pencil_beam import LANES

        turned = blurred[:, ::-1, ::-1] if axis == 1 else blurred[:, ::-1, ::-1].transpose(0, 2, 1)
        rank, size, _ = turned.shape
        width = -(-size // phases) + 1
        padded = np.zeros((rank, width * phases, width * phases), dtype=np.float32)
        padded[:, :size, :size] = turned
        ordered = padded.reshape(rank, width, phases, width, phases).transpose(0, 2, 4, 1, 3).reshape(-1)
        layout = np.asarray([(phases * width) ** 2, width**2, width, phases], dtype=np.int64)
        return cls(np.concatenate([ordered, np.zeros(LANES, np.float32)]), layout, pitch, (size // 2) * pitch)


class _Tables:
    """Bixel tables made so far: beams that share kernel, bixel width and direction of runs share one."""

    def __init__(self, machine: PhotonMachine, pixel: float) -> None:
        self.machine = machine
        self.pixel = pixel
        self._made: list[tuple[KernelBasis, tuple[float, float, int], _Table]] = []

    def get(self, basis: KernelBasis, bixel_width: float, radius: float, axis: int) -> _Table:
        """Return the table for a kernel, a bixel width [mm] and the axis of runs, out to a radius [mm]."""
        key = (bixel_width, radius, axis)
        for known, held, table in self._made:
            if known is basis and held == key:
                return table
        phases = math.ceil(bixel_width / self.pixel - 1e-9)
        pitch = bixel_width / phases
        sigma, shift = self.machine.source_sigma, self.machine.bixel_shift
        blurred = bixel_table(basis, sigma, bixel_width, pitch, radius + 2 * pitch, shift)
        if not np.all(np.isfinite(blurred)):
            raise CalculationError(f"the kernel of machine {self.machine.name!r} gives dose that is not finite")
        table = _Table.of(blurred, pitch, phases, axis)
        self._made.append((basis, key, table))
        return table


@dataclass(frozen=True, eq=False)
class _BeamPart:
    """One beam, ready to be written: which voxels it reaches, where they lie, how many entries there are.

    Parameters
    ----------
    points : array of shape (n, 2)
        All voxels in the isocentre plane, (across, along) the runs [mm].
    rows : array of shape (m,)
        Voxels that get dose.
    weights : array of shape (m, K)
        Their depth weights and inverse square, float32.
    scale : array of shape (bixels + spare,)
        In-air profile, float32.
    """

    runs: _Runs
    table: _Table
    step: float
    radius: float
    points: Floats
    rows: Array
    weights: Array
    scale: Array
    edges: Array

    @classmethod
    def of(cls, beam: Beam, scene: PhotonScene, tables: _Tables, radius: float) -> _BeamPart:
        """Return a beam's part, with entries out to a radius around bixels [mm]."""
        from radplan.kernels import pencil_beam

        runs, rays = _Runs.of(beam.bixels, beam.bixel_width), BeamRays.of(beam, scene, radius)
        plane = np.stack([rays.x, rays.y] if runs.axis == 1 else [rays.y, rays.x], axis=1)
        rows = rays.rows.astype(np.int32)
        return cls(
            runs=runs,
            table=tables.get(rays.basis, beam.bixel_width, radius, runs.axis),
            step=beam.bixel_width,
            radius=radius,
            points=plane,
            rows=rows,
            weights=np.ascontiguousarray(rays.weights.T, dtype=np.float32),
            scale=np.concatenate([rays.profile, np.zeros(pencil_beam.LANES)]).astype(np.float32),
            edges=np.linspace(0, rows.size, _PIECES + 1).astype(np.int64),
        )

    @property
    def count(self) -> int:
        """Number of bixels."""
        return int(self.runs.sizes.sum())

    def write(self, column: int, begins: Ints, rows: BlockRows, write: bool) -> Ints:
        """Return numbers of blocks of the rows ``(m,)``, and write them from each row's `begins` on."""
        from radplan.kernels import pencil_beam

        runs, table, counts = self.runs, self.table, np.zeros(begins.size, dtype=np.int64)
        pencil_beam.write_blocks(
            self.points, self.rows, self.edges, runs.starts, runs.firsts, runs.sizes, self.radius, self.step,
            runs.groups, runs.origins, runs.places, self.weights, self.scale, table.values, table.layout, table.pitch,
            table.reach, column, begins, counts, rows.firsts, rows.values[0], write,
        )  # fmt: skip
        return counts


def _assemble(parts: list[_BeamPart], voxels: int, device: Device, dtype: str) -> SparseOperator:
    """Write all beams side by side into one matrix."""
    nothing = BlockRows.zeros(np.zeros(voxels, dtype=np.int64), sum(part.count for part in parts))
    per_row = np.zeros(voxels, dtype=np.int64)
    for part in each("influence", parts, "counting"):
        per_row[part.rows] += part.write(0, np.zeros(part.rows.size, dtype=np.int64), nothing, False)
    if not per_row.any():
        raise CalculationError("no bixel gives dose to any voxel: does the dose grid cover the beams in the patient?")
    rows = BlockRows.zeros(per_row, nothing.columns, 1, device, dtype)
    begins, column = rows.pointers[:-1].copy(), 0
    for part in each("influence", parts, "writing"):
        begins[part.rows] += part.write(column, begins[part.rows], rows, True)
        column += part.count
    return sparse_images(rows, device, dtype)[0]
