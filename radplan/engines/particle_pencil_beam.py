"""The particle pencil-beam engine: spots of protons, helium, carbon and fast electrons, all images on one pattern."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import threadpoolctl

from radplan.arrays import Array
from radplan.beams.beam import Beam, Beams
from radplan.beams.spots import air_gap
from radplan.biology.rbe import RBE_MODELS, ConstantRBE, RBEModel
from radplan.engines.base import ENGINES, Engine, Machine, Voxels
from radplan.engines.particle_tables import PER_MM, DepthTables, Images, Lateral, Tissues
from radplan.errors import CalculationError, InputError
from radplan.geometry.frames import isocentre_plane, world_to_beam
from radplan.geometry.grid import Grid
from radplan.geometry.rays import radiological_depth, surface_distance
from radplan.influence import Dij, Scenarios, Variables
from radplan.machines.particle import ParticleMachine
from radplan.operators import SparseOperator
from radplan.patient.patient import Patient

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

IONS = {"protons": (1, 1), "helium": (2, 4), "carbon": (6, 12)}
"""Charge and mass number."""

_BLOCKS = 256
"""Blocks of rows that threads share; fixed, so that a matrix does not depend on the number of threads."""


@ENGINES.register
@dataclass(frozen=True)
class ParticlePencilBeam(Engine):
    r"""Particle pencil beams on a machine's depth tables: dose, LET dose and biology of every spot.

    A spot of :math:`10^6` particles gives a voxel at radiological depth z (Siddon, from the source) and at the
    distance r from the spot's ray

    .. math:: D = 1.6022 \cdot 10^{-2} \, Z(z') \, L(r, z') / c, \qquad
              L = \frac{e^{-r^2/2S}}{2\pi S}, \quad S = \sigma^2(z') + \sigma_0^2

    with the table depth :math:`z' = z + z_{air} + z_{shifter}`, :math:`z_{air} = 0.0011` of the air between nozzle and
    surface beyond that in the tables, the spot's width :math:`\sigma_0` at the surface (in quadrature with the range
    shifter's), and two Gaussians or an elliptic one where the option says so. Entries farther from the ray than the
    radius that holds the share c of a spot's dose at that depth are left out, and the others made up for them. Every
    other image is dose times a factor read from the tables at z': LET, alpha, root beta, or 1 where LET exceeds a
    threshold.

    Parameters
    ----------
    lateral : "fast", "accurate", "single", "double" or "elliptic"
        Lateral model. ``"fast"``: the single Gaussian where the machine has it; ``"accurate"``: the double one.
    lateral_cutoff : float
        Share c of a spot's dose that is kept, in (0, 1).
    biology : str or RBEModel, optional
        A name in `RBE_MODELS` or a model. ``"default"``: a constant RBE of 1.1 for protons, otherwise the machine's
        tables, or none where it has none. None: without biology; quantities that need an RBE then raise.
    let : bool
        Whether to give ``let_dose``; without LET in the machine's tables there is none.
    let_threshold : float, optional
        LET above which dose is dirty [keV/um], > 0; gives ``dirty_dose``.
    air_correction : bool
        Whether the air between nozzle and patient counts.

    Raises
    ------
    InputError
        When an option is out of its range.

    Notes
    -----
    Sources: Hong et al., Phys. Med. Biol. 41 (1996) 1305; matRad 3.2.2 for the air gap and the cut-off; Heuchel et al.
    (2024) for dirty dose.

    >>> ParticlePencilBeam(lateral="double").biology
    'default'
    """

    lateral: Literal["fast", "accurate", "single", "double", "elliptic"] = "fast"
    lateral_cutoff: float = 0.995
    biology: str | RBEModel | None = "default"
    let: bool = True
    let_threshold: float | None = None
    air_correction: bool = True

    name: ClassVar[str] = "particle_pencil_beam"
    radiation: ClassVar[tuple[str, ...]] = ("protons", "helium", "carbon", "VHEE")

    def __post_init__(self) -> None:
        if not 0.0 < self.lateral_cutoff < 1.0:
            raise InputError(f"lateral_cutoff must be a share of dose in (0, 1), got {self.lateral_cutoff}")
        if self.let_threshold is not None and not self.let_threshold > 0.0:
            raise InputError(f"let_threshold must be > 0 keV/um, got {self.let_threshold}")
        if self.lateral not in ("fast", "accurate", "single", "double", "elliptic"):
            raise InputError(f"lateral must be fast, accurate, single, double or elliptic, got {self.lateral!r}")

    @classmethod
    def examples(cls) -> list[Self]:
        return [cls(), cls(lateral="accurate", biology="wedenberg", let_threshold=2.5)]

    def images_for(self, machine: Machine) -> tuple[str, ...]:
        return self._images(_particle_machine(machine, self.name)).names

    def rbe_model(self, machine: ParticleMachine) -> RBEModel | None:
        """Return the RBE model for a machine, checked; None where there is no biology.

        Raises
        ------
        UnknownNameError
            When no model has that name.
        InputError
            When the model was made for another radiation or the machine lacks the tables it needs.
        """
        model: RBEModel | None
        if self.biology == "default":
            if machine.radiation == "protons":
                return ConstantRBE()
            model = RBE_MODELS.get("tabulated")() if machine.has_biology else None
        else:
            model = RBE_MODELS.get(self.biology)() if isinstance(self.biology, str) else self.biology
        if model is None:
            return None
        if machine.radiation not in model.radiation:
            raise InputError(
                f"the RBE model {model.name!r} was made for {', '.join(model.radiation)}, but machine {machine.name!r} "
                f"delivers {machine.radiation}"
            )
        if (model.needs == "tables" and not machine.has_biology) or (model.needs == "let" and not machine.has_let):
            missing = "alpha and beta" if model.needs == "tables" else "LET"
            raise InputError(
                f"the RBE model {model.name!r} needs {missing}, which machine {machine.name!r} does not tabulate: "
                "choose another model (biology=) or machine"
            )
        return model

    def influence(
        self,
        patient: Patient,
        beams: Beams,
        machine: Machine,
        grid: Grid,
        scenarios: Scenarios,
        *,
        stored: bool,
        device: str,
        dtype: str,
        voxels: Voxels,
    ) -> Dij:
        particles = _particle_machine(machine, self.name)
        self._check(beams, scenarios, stored)
        images, model = self._images(particles), self.rbe_model(particles)
        parameters = patient.voxel_parameters(grid, voxels)
        tissues = Tissues.of(parameters["alpha_x"][0], parameters["beta_x"][0])
        scene = _Scene(patient.density(), patient.ct.grid, grid.points(voxels), particles, images, tissues)
        # Why: the thread pools of numba and BLAS fight; nothing here is large enough for BLAS to need more than one.
        with threadpoolctl.threadpool_limits(limits=1, user_api="blas"):
            parts = []
            for number, beam in enumerate(beams):
                parts.append(_BeamPart.of(beam, scene, self))
                logger.info("beam %d of %d: %d spots", number + 1, len(beams), beam.count)
            operators = _assemble(parts, scene, device, dtype)
        if isinstance(model, ConstantRBE):
            parameters["rbe"] = np.full((1, voxels.size), model.value)
        place = operators[0].target
        return Dij(
            operators={name: (operator,) for name, operator in zip(images.names, operators, strict=True)},
            grid=grid,
            voxels=voxels,
            scenarios=scenarios,
            radiation=particles.radiation,
            variables=Variables(beams.count, labels=("spot weight [1e6 particles]",)),
            voxel_parameters={name: place.asarray(values, dtype) for name, values in parameters.items()},
            beam_index=beams.beam_index,
            beams=beams,
            machine=particles.name,
        )

    def _images(self, machine: ParticleMachine) -> Images:
        model = self.rbe_model(machine)
        names = ["physical_dose"]
        if self.let and machine.has_let:
            names.append("let_dose")
        if self.let_threshold is not None:
            if not machine.has_let:
                raise InputError(f"dirty dose needs LET, which machine {machine.name!r} does not tabulate")
            names.append("dirty_dose")
        variable = model is not None and model.needs != "nothing"
        if variable:
            names += ["alpha_dose", "sqrt_beta_dose"]
        return Images(
            tuple(names), self.let_threshold or 0.0, model if variable else None, self._lateral_model(machine)
        )

    def _lateral_model(self, machine: ParticleMachine) -> Lateral:
        order: dict[str, tuple[Lateral, ...]] = {
            "fast": ("single", "double", "elliptic"),
            "accurate": ("double", "single", "elliptic"),
            "single": ("single",),
            "double": ("double",),
            "elliptic": ("elliptic",),
        }
        for name in order[self.lateral]:
            if name in machine.gaussians:
                return name
        raise InputError(
            f"machine {machine.name!r} has no {self.lateral} lateral model; it offers {', '.join(machine.gaussians)}"
        )

    def _check(self, beams: Beams, scenarios: Scenarios, stored: bool) -> None:
        if not stored:
            raise InputError(f"the engine {self.name!r} stores its matrices: leave stored=True")
        if len(scenarios) != 1:
            raise InputError(
                f"the engine {self.name!r} calculates the nominal case only, got scenarios {', '.join(scenarios.names)}"
            )
        for beam in beams:
            if beam.energies is None:
                raise InputError(
                    f"the beam at gantry {beam.gantry:g} has no energies: place spots with place_beams, or give "
                    "energies= to Beams.from_rays"
                )


def _particle_machine(machine: Machine, engine: str) -> ParticleMachine:
    if not isinstance(machine, ParticleMachine):
        raise InputError(f"the engine {engine!r} needs a ParticleMachine, got {type(machine).__name__}")
    return machine


@dataclass(frozen=True, eq=False)
class _Scene:
    """What all beams of a calculation share."""

    density: Array
    ct_grid: Grid
    points: Floats
    machine: ParticleMachine
    images: Images
    tissues: Tissues


@dataclass(frozen=True, eq=False)
class _Spots:
    """Spots of a beam by ray, and what each adds to depth and width; see `radplan.kernels.hong`.

    Parameters
    ----------
    x, y, directions : arrays of shape (r,), (r,), (r, 3)
        Rays in the isocentre plane, sorted by x [mm], and where they point.
    first : array of shape (r + 1,)
        Where the spots of each ray begin.
    columns, energies : arrays of shape (s,)
        Column of each spot, and its place among `layers`.
    shifts, variances : arrays of shape (s,)
        Added to radiological depth [mm], and variance in front of the patient [mm^2].
    layers : array of shape (e,)
        Energy indices of the machine that the beam uses.
    """

    x: Floats
    y: Floats
    directions: Floats
    first: Ints
    columns: npt.NDArray[np.int32]
    energies: npt.NDArray[np.int32]
    shifts: Floats
    variances: Floats
    layers: Ints

    @classmethod
    def of(cls, beam: Beam, scene: _Scene, air_correction: bool) -> _Spots:
        """Return the spots of a beam, with the air gap and width at the surface that each ray meets."""
        assert beam.energies is not None
        machine = scene.machine
        places, ray = np.unique(beam.bixels, axis=0, return_inverse=True)
        ray = ray.reshape(-1)
        order = np.argsort(ray, kind="stable")
        energies, inverse = np.unique(beam.energies, return_inverse=True)
        layers = np.asarray([machine.energy_index(float(energy)) for energy in energies], dtype=np.int64)
        energy = inverse.reshape(-1)[order]
        ssd = _surface_distances(beam, places, scene)[ray[order]]
        offsets = np.asarray([machine.entry(int(layer)).offset for layer in layers])
        shifts = (air_gap(machine, ssd) if air_correction else np.zeros_like(ssd)) - offsets[energy]
        if beam.range_shifter is not None:
            shifts = shifts + beam.range_shifter.thickness
        towards = np.column_stack([places, np.full(places.shape[0], machine.sad)])
        return cls(
            np.ascontiguousarray(places[:, 0]),
            np.ascontiguousarray(places[:, 1]),
            towards / np.linalg.norm(towards, axis=1, keepdims=True),
            np.concatenate([[0], np.cumsum(np.bincount(ray, minlength=places.shape[0]))]).astype(np.int64),
            order.astype(np.int32),
            energy.astype(np.int32),
            shifts,
            _variances(beam, machine, layers, energy, ssd),
            layers,
        )

    def largest(self, values: Floats) -> Floats:
        """Return the largest of values ``(s,)`` among the spots of each energy, shape (e,)."""
        found = np.full(self.layers.size, -np.inf)
        np.maximum.at(found, self.energies, values)
        return found


def _variances(beam: Beam, machine: ParticleMachine, layers: Ints, energy: Ints, ssd: Floats) -> Floats:
    """Return the variance of each spot at the surface [mm^2], range shifter included."""
    variances = np.zeros(energy.size)
    for e, index in enumerate(layers):
        layer, spots = machine.entry(int(index)), energy == e
        focus = machine.focus_index(beam.bixel_width, int(index))
        variances[spots] = layer.focus.sigma_at(ssd[spots], focus) ** 2
        if beam.range_shifter is not None:
            if machine.radiation not in IONS:
                raise InputError(f"a range shifter is not known for {machine.radiation}")
            gap = ssd[spots] - (machine.sad - beam.range_shifter.isocenter_distance)
            variances[spots] += beam.range_shifter.variance(gap, layer.range80, *IONS[machine.radiation])
    return variances


def _surface_distances(beam: Beam, places: Floats, scene: _Scene) -> Floats:
    """Return the distance from the source to the surface on each ray; that of the nearest ray where it misses [mm]."""
    targets = beam.isocenter + places @ beam.rotation[:, :2].T
    found = np.asarray(surface_distance(scene.density, scene.ct_grid, beam.source, targets))
    met = np.flatnonzero(np.isfinite(found))
    if not met.size:
        raise InputError(
            f"no spot of the beam at gantry {beam.gantry:g}, couch {beam.couch:g} meets the patient: "
            f"is the isocentre {beam.isocenter.tolist()} mm in the patient?"
        )
    for miss in np.flatnonzero(~np.isfinite(found)):
        found[miss] = found[met[np.argmin(np.sum((places[met] - places[miss]) ** 2, axis=1))]]
    return found


@dataclass(frozen=True, eq=False)
class _BeamPart:
    """One beam, ready to be written: what the kernels read, which rows it reaches, how many entries there are."""

    spots: _Spots
    geometry: tuple[Array, ...]
    rows: npt.NDArray[np.int32]
    per_row: Array
    per_column: Array

    @classmethod
    def of(cls, beam: Beam, scene: _Scene, options: ParticlePencilBeam) -> _BeamPart:
        from radplan.kernels import hong

        spots = _Spots.of(beam, scene, options.air_correction)
        tables = DepthTables.of(
            scene.machine, spots.layers, spots.largest(spots.variances), options.lateral_cutoff, scene.images,
            scene.tissues,
        )  # fmt: skip
        shifts = np.stack([-spots.largest(-spots.shifts), spots.largest(spots.shifts)], axis=1)
        envelope = tables.envelope(shifts)
        rows, points, depths = _reached(beam, scene, spots, envelope)
        edges = np.linspace(0, rows.size, _BLOCKS + 1).astype(np.int64)
        geometry = (
            points, depths, edges, scene.machine.sad, envelope, spots.x, spots.y, spots.directions, spots.first,
            spots.columns, spots.energies, spots.shifts, tables.knots, tables.table, tables.starts, tables.bins,
            tables.bin_starts, PER_MM,
        )  # fmt: skip
        per_row, per_column = hong.count_entries(*geometry)
        return cls(spots, geometry, rows, per_row, per_column)


def _reached(
    beam: Beam, scene: _Scene, spots: _Spots, envelope: Floats
) -> tuple[npt.NDArray[np.int32], Floats, Floats]:
    """Return the voxels in the patient that spots can reach, seen from the source, and their radiological depths."""
    sad = scene.machine.sad
    local = world_to_beam(scene.points, beam.isocenter, beam.rotation)
    x, y, axial = isocentre_plane(local, sad)
    room = float(envelope.max()) * sad / np.maximum(axial, 1.0) * 1.05
    near = (x >= spots.x.min() - room) & (x <= spots.x.max() + room)
    near &= (y >= spots.y.min() - room) & (y <= spots.y.max() + room) & (axial > 0.0)
    rows = np.flatnonzero(near)
    depths = np.asarray(radiological_depth(scene.density, scene.ct_grid, beam.source, scene.points[rows]))
    inside = (depths > 0.0) & (depths < envelope.size)
    rows, depths = rows[inside], depths[inside]
    seen = np.column_stack([local[rows, 0], local[rows, 1], sad - local[rows, 2]])
    return rows.astype(np.int32), seen, depths


def _assemble(parts: list[_BeamPart], scene: _Scene, device: str, dtype: str) -> list[SparseOperator]:
    """Write all beams side by side into one matrix for each image, and their transposes."""
    from radplan.kernels import hong

    voxels, images = scene.points.shape[0], scene.images
    counts = np.zeros(voxels, dtype=np.int64)
    for part in parts:
        counts[part.rows] += part.per_row
    indptr = _offsets(counts)
    t_indptr = _offsets(np.concatenate([part.per_column.sum(axis=0) for part in parts]))
    entries = int(indptr[-1])
    if entries == 0:
        raise CalculationError("no spot gives dose to any voxel: does the dose grid cover the beams in the patient?")
    indices, t_indices = np.empty(entries, dtype=np.int32), np.empty(entries, dtype=np.int32)
    data, t_data = (np.empty((len(images.names), entries), dtype=np.float32) for _ in range(2))
    model = {"single": hong.SINGLE, "double": hong.DOUBLE, "elliptic": hong.ELLIPTIC}[images.lateral]
    factors, begin, column = images.factors(scene.tissues.count), indptr[:-1].copy(), 0
    for part in parts:
        count = part.per_column.shape[1]
        heads = t_indptr[column : column + count] + np.cumsum(part.per_column, axis=0) - part.per_column
        hong.fill_entries(
            *part.geometry, model, part.spots.variances, scene.tissues.index[part.rows], factors, images.thresholds(),
            part.rows, column, begin[part.rows], indices, data, part.per_column, heads, t_indices, t_data,
        )  # fmt: skip
        begin[part.rows] += part.per_row
        column += count
    shape = (voxels, column)
    return [
        SparseOperator.from_csr(
            indptr, indices, data[k], shape, transpose=(t_indptr, t_indices, t_data[k]), device=device, dtype=dtype
        )
        for k in range(data.shape[0])
    ]


def _offsets(counts: Ints) -> Ints:
    """Return where each row begins, and the total, for numbers of entries per row."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
