"""The particle pencil-beam engine: spots of protons, helium, carbon and fast electrons, all images on one pattern."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from radplan.beams.beam import Beams
from radplan.beams.spots import spot_limits
from radplan.biology.rbe import RBE_MODELS, ConstantRBE, RBEModel
from radplan.engines.base import ENGINES, Engine, Machine, check_options
from radplan.engines.particle.cutoff import Cutoff, Lateral
from radplan.engines.particle.spots import Scene
from radplan.engines.particle.tables import LET_DETAILS, Images
from radplan.engines.particle.tissues import Tissues, check_tissues
from radplan.engines.scope import Scope
from radplan.errors import InputError
from radplan.influence import Dij, Variables
from radplan.kernels.threads import one_blas_thread
from radplan.machines.particle import ParticleMachine
from radplan.operators import FamilyMember, LinearOperator
from radplan.patient.patient import Patient
from radplan.progress import each

logger = logging.getLogger(__name__)


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

    With ``stored=False`` entries are calculated in every product and not kept: memory does not grow with the number of
    spots that a voxel sees; a product takes several times as long as with a matrix.

    Parameters
    ----------
    lateral : "fast", "accurate", "single", "double" or "elliptic"
        Lateral model. ``"fast"``: the single Gaussian where the machine has it; ``"accurate"``: the double one.
    lateral_cutoff : float
        Share c of a spot's dose that is kept, in (0, 1).
    cutoff_rule : "exact" or "matrad", optional
        How the radius that holds this share is found, see `radplan.engines.particle.cutoff.Cutoff`; the machine's way
        when left out: ``"matrad"`` for those of matRad, so that its cubes are met in the penumbra too, and ``"exact"``
        for all others. The rules differ at the rim of spots: in matRad's water box by at most 0.3 % of the dose maximum
        for protons and 1.3 % for carbon, in LETd by more than 1 % in 0.4 and 0.7 % of the voxels.
    biology : str or RBEModel, optional
        A name in `RBE_MODELS` or a model. ``"default"``: a constant RBE of 1.1 for protons, otherwise the machine's
        tables, or none where it has none. None: without biology; quantities that need an RBE then raise.
    let : bool
        Whether to give ``let_dose``; without LET in the machine's tables there is none.
    let_threshold : float, optional
        LET above which dose is dirty [keV/um], > 0; gives ``dirty_dose``.
    let_details : bool
        Whether to give ``let_all_dose``, ``primary_dose``, ``primary_let_dose``, ``primary_fluence``, ``proton_dose``
        and ``proton_fluence``, by which LETd of all charged particles and of primaries and LETt of primaries and of all
        protons are known: `let_all`, `primary_let`, `let_track`, `let_track_protons`. Of machines of protons that
        tabulate primaries and all protons.
    air_correction : bool
        Whether the air between nozzle and patient counts.
    fine_sampling : float, optional
        Width at the surface of the sub-beamlets that spots are split into, each with the radiological depth along its
        own path [mm], > 0; see `radplan.engines.particle.fine_sampling`. For edges of tissue in the beam; half the
        width of the spots makes some 50 of each, and takes about as many times as long. None: spots stay whole, and
        each voxel's own depth counts for all of them.

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
    cutoff_rule: Literal["exact", "matrad"] | None = None
    biology: str | RBEModel | None = "default"
    let: bool = True
    let_threshold: float | None = None
    air_correction: bool = True
    fine_sampling: float | None = None
    let_details: bool = False

    name: ClassVar[str] = "particle_pencil_beam"
    radiation: ClassVar[tuple[str, ...]] = ("protons", "helium", "carbon", "VHEE")

    def __post_init__(self) -> None:
        check_options(
            self, ("lateral_cutoff", "let_threshold", "fine_sampling"), ("let", "air_correction", "let_details")
        )
        Cutoff(self.lateral_cutoff, self.cutoff_rule or "exact")
        if not isinstance(self.biology, str | RBEModel | None):
            raise InputError(f"biology must be a name, an RBEModel or None, got {self.biology!r}")
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

    def influence(self, patient: Patient, beams: Beams, machine: Machine, scope: Scope) -> Dij:
        particles = _particle_machine(machine, self.name)
        self._check(beams)
        images, model = self._images(particles), self.rbe_model(particles)
        if images.model is not None:
            check_tissues(patient, images.model.name)
        parameters = patient.voxel_parameters(scope.grid, scope.voxels)
        tissues = Tissues.of(parameters["alpha_x"][0], parameters["beta_x"][0])
        scene = Scene(
            patient.density(),
            patient.ct.grid,
            scope.grid.points(scope.voxels),
            particles,
            images,
            tissues,
            Cutoff(self.lateral_cutoff, self.cutoff_rule or particles.cutoff_rule),
            self.air_correction,
            self.fine_sampling,
            scope.error,
        )
        operators = self._operators(beams, scene, scope)
        constant = {"rbe": model.value} if isinstance(model, ConstantRBE) else {}
        least, largest = spot_limits(beams, particles)
        return Dij(
            operators={name: (operator,) for name, operator in zip(images.names, operators, strict=True)},
            rows=scope.rows(patient, **constant),
            radiation=particles.radiation,
            variables=Variables(
                beams.count,
                upper=largest,
                labels=("spot weight [1e6 particles]",),
                minimum=least,
                groups=beams.ray_index,
            ),
            beam_index=beams.beam_index,
            beams=beams,
            machine=particles.name,
        )

    def _operators(self, beams: Beams, scene: Scene, scope: Scope) -> tuple[LinearOperator, ...]:
        """Return the operator of every image, all beams side by side."""
        # Why: compiled kernels take a while to load, and only calculations need them.
        from radplan.engines.particle.field import BeamField
        from radplan.engines.particle.matrix import spot_matrices
        from radplan.engines.particle.on_the_fly import SpotDose

        images = len(scene.images.names)
        with one_blas_thread():
            fields = []
            for number, beam in enumerate(each("influence", tuple(beams), "ray tracing")):
                fields.append(BeamField.of(beam, scene))
                logger.info("beam %d of %d: %d spots", number + 1, len(beams), beam.count)
            if scope.stored:
                return spot_matrices(fields, scope.voxels.size, images, scope.device, scope.dtype)
            family = SpotDose(tuple(fields), scope.voxels.size, scope.device, scope.dtype)
            return tuple(FamilyMember(family, place) for place in range(images))

    def _images(self, machine: ParticleMachine) -> Images:
        model = self.rbe_model(machine)
        names = ["physical_dose"]
        if self.let and machine.has_let:
            names.append("let_dose")
        if self.let_threshold is not None:
            if not machine.has_let:
                raise InputError(
                    f"dirty dose needs LET, which machine {machine.name!r} does not tabulate: leave let_threshold out, "
                    "or choose another machine"
                )
            names.append("dirty_dose")
        if self.let_details:
            if not machine.has_let_details:
                raise InputError(
                    f"let_details needs let_all, and dose and fluence of primaries and of all protons, which machine "
                    f"{machine.name!r} does not tabulate: leave it out, or choose another machine"
                )
            names += LET_DETAILS
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

    def _check(self, beams: Beams) -> None:
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
