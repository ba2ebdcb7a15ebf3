"""What an engine promises, the registry of engines, and the one call that uses them."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from numbers import Real
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt

from radplan.arrays import Device
from radplan.beams.beam import Beams
from radplan.beams.control_points import DeliveryPlan
from radplan.biology.rbe import RBE_MODELS, RBEModel
from radplan.engines.scope import Scope
from radplan.errors import InputError, UnknownNameError
from radplan.geometry.grid import Grid
from radplan.influence import Dij, ForwardModel, Scenarios, over_cases
from radplan.patient.patient import Patient
from radplan.progress import Choice, listening
from radplan.registry import Registry

logger = logging.getLogger(__name__)


class Machine(Protocol):
    """What every machine says about itself; an engine asks for more of the kind it knows."""

    @property
    def name(self) -> str:
        """What users call it."""

    @property
    def radiation(self) -> str:
        """``"photons"``, ``"protons"``, ``"helium"`` or ``"carbon"``."""

    @property
    def sad(self) -> float:
        """Distance from the source to the isocentre [mm]."""


class Engine(ABC):
    """A dose calculation: physics arranged from functions with units, and options as fields.

    A concrete engine is a frozen dataclass whose fields are options with defaults. It states `name` and `radiation`
    and joins by ``@ENGINES.register`` or the entry-point group ``radplan.engine``.

    >>> from radplan.engines import ENGINES
    >>> ENGINES.get("photon_pencil_beam").radiation
    ('photons',)
    """

    name: ClassVar[str]
    radiation: ClassVar[tuple[str, ...]]
    delivers: ClassVar[bool] = False
    """Whether it calculates a `DeliveryPlan`, what a linac delivers, in place of `Beams` of bixels or spots."""
    simulates: ClassVar[bool] = False
    """Whether its dose is a simulation's, with noise and without a gradient; `forward_model` then takes beams, too."""

    @classmethod
    @abstractmethod
    def examples(cls) -> list[Self]:
        """Return instances for the conformance tests, the default among them."""

    @abstractmethod
    def images_for(self, machine: Machine) -> tuple[str, ...]:
        """Return the names of the images that it calculates for a machine."""

    @abstractmethod
    def influence(self, patient: Patient, beams: Any, machine: Machine, scope: Scope) -> ForwardModel:
        """Return the forward model of the beams' weights.

        Parameters
        ----------
        patient : Patient
            CT and structures.
        beams : Beams or DeliveryPlan
            Beams with their bixels or spots for this machine, or fields for an engine that `delivers`.
        machine : Machine
            Of a radiation that the engine calculates.
        scope : Scope
            Where dose is wanted, checked: grid, voxels, device, dtype, stored or on the fly; of one case, whose range
            error the engine applies to radiological depths: ``scope.error.depths``.
        """

    def resolved(self, patient: Patient, machine: Machine) -> Self:
        """Return the engine with every option said that it leaves to patient and machine: what a plan writes down."""
        return self

    def to_options(self) -> dict[str, Any]:
        """Return the options that are not the default ones, as plain data for a plan file."""
        options = {}
        for entry in fields(self):  # type: ignore[arg-type]
            value = vars(self)[entry.name]
            if entry.init and value != entry.default:
                told = isinstance(value, RBEModel)
                options[entry.name] = {"name": value.name, "parameters": asdict(value)} if told else value
        return options


ENGINES: Registry[Engine] = Registry("engine", Engine)  # type: ignore[type-abstract]
"""All engines by name."""

DEFAULT_ENGINES = {
    "photons": "photon_pencil_beam",
    "protons": "particle_pencil_beam",
    "helium": "particle_pencil_beam",
    "carbon": "particle_pencil_beam",
    "VHEE": "particle_pencil_beam",
}
"""The engine that a radiation gets when none is named, whatever else is registered; one of a radiation that is not
listed gets the only engine that calculates it."""


def dose_influence(
    patient: Patient,
    beams: Beams,
    machine: Machine,
    grid: float | tuple[float, float, float] | Grid = 5.0,
    engine: str | Engine | None = None,
    stored: bool = True,
    device: str | Device = "numpy",
    dtype: str = "float32",
    voxels: Literal["body"] | npt.ArrayLike = "body",
    scenarios: Scenarios | None = None,
    progress: Choice = None,
) -> Dij:
    """Calculate the dose that every bixel of unit weight gives to every voxel.

    Parameters
    ----------
    patient : Patient
        CT and structures.
    beams : Beams
        As `radplan.place_beams` or `Beams.from_rays` make them, for this machine.
    machine : Machine
        As `radplan.load_machine` returns it.
    grid : float, (float, float, float) or Grid
        The dose grid, or its spacing [mm]: it then starts on the CT's first voxel centre.
    engine : str or Engine, optional
        A name in `ENGINES` or an instance with options; chosen by the machine's radiation when left out.
    stored : bool
        Whether to store the matrix; otherwise dose is calculated on the fly, by the engines that can.
    device : str
        Where the products run: ``backend[:device[:index]]``, such as ``"numpy"`` or ``"torch:cuda:1"``.
    dtype : str
        ``"float32"`` or ``"float64"``, of the matrix values.
    voxels : "body" or array of shape (n,)
        The rows: the external contour grown by one voxel, or sorted flat indices into the grid.
    scenarios : Scenarios, optional
        The cases, as `Scenarios.setup_and_range` lists them; the nominal one when left out. Each costs as much time
        and memory as the nominal one.
    progress : bool or callable, optional
        True shows a bar with the time left, False nothing, a callable is told each `radplan.progress.Report`; left
        out, a bar is shown in a terminal or a notebook.

    Returns
    -------
    Dij
        Per fraction and unit weight; `voxel_parameters` holds ``alpha_x`` [1/Gy], ``beta_x`` [1/Gy^2] and ``rbe`` [1].

    Raises
    ------
    InputError
        When beams, machine and engine do not belong together, there are no bixels, or an option cannot be used.
    UnknownNameError
        When no engine or device has that name.

    >>> import radplan.beams, radplan.machines
    >>> from radplan.patient.phantoms import phantom
    >>> linac = radplan.machines.library_machine("generic_photon_6mv")
    >>> beams = radplan.beams.Beams.from_rays([[[0.0, 0.0]]], gantry=0.0, isocenter=(0.0, 0.0, 0.0), sad=linac.sad,
    ...                                       bixel_width=10.0, machine=linac.name)
    >>> dij = dose_influence(phantom("box"), beams, linac, grid=20.0)
    >>> dij.images, dij.variables.count
    (('physical_dose',), 1)
    """
    chosen = find_engine(engine, machine.radiation)
    check_beams(beams, machine)
    scope = Scope.of(patient, grid, voxels, scenarios, device, dtype, stored)
    with listening(progress):
        model = _over_cases(chosen, patient, beams, machine, scope)
    if not isinstance(model, Dij):
        raise InputError(f"the engine {chosen.name!r} gives a {type(model).__name__}, not a Dij: call forward_model")
    return replace(model, settings={**engine_to_spec(chosen.resolved(patient, machine)), "stored": stored})


def forward_model(
    patient: Patient,
    plan: DeliveryPlan | Beams,
    machine: Machine,
    grid: float | tuple[float, float, float] | Grid = 5.0,
    engine: str | Engine = "photon_aperture",
    device: str | Device = "numpy",
    dtype: str = "float32",
    voxels: Literal["body"] | npt.ArrayLike = "body",
    scenarios: Scenarios | None = None,
) -> ForwardModel:
    """Return the forward model of what a linac delivers, in every scenario: its variables are leaves and monitor units.

    Parameters
    ----------
    patient, machine, grid, device, dtype, voxels, scenarios
        As `dose_influence` takes them.
    plan : DeliveryPlan or Beams
        Fields, as `radplan.beams.place_fields`, `place_arc` or `radplan.io.dicom.read_plan` make them; beams of spots
        for an engine that `simulates` them.
    engine : str or Engine
        One that `delivers` or `simulates`.

    Returns
    -------
    ForwardModel
        An `ApertureModel`; a `CasesModel` of one for each of several scenarios.

    Raises
    ------
    InputError
        When engine, machine and plan do not belong together, or an option cannot be used.
    UnknownNameError
        When no engine or device has that name.
    """
    chosen = find_engine(engine, machine.radiation)
    if not (chosen.delivers or chosen.simulates):
        raise InputError(f"the engine {chosen.name!r} calculates beams of bixels or spots: call dose_influence")
    if isinstance(plan, Beams):
        check_beams(plan, machine)
    scope = Scope.of(patient, grid, voxels, scenarios, device, dtype, stored=False)
    return _over_cases(chosen, patient, plan, machine, scope)


def _over_cases(
    engine: Engine, patient: Patient, beams: Beams | DeliveryPlan, machine: Machine, scope: Scope
) -> ForwardModel:
    """Return an engine's model of all scenarios, each calculated by itself with the isocentres where they are then."""
    cases: list[ForwardModel] = []
    for name, case in zip(scope.scenarios.names, scope.cases(), strict=True):
        if len(scope.scenarios) > 1:
            logger.info("scenario %d of %d: %s", len(cases) + 1, len(scope.scenarios), name)
        cases.append(engine.influence(patient, case.error.beams(beams), machine, case))
    return cases[0] if len(cases) == 1 else over_cases(cases, scope.scenarios)


def engine_to_spec(engine: Engine) -> dict[str, Any]:
    """Return an engine's name and those of its options that are not the default ones, as plain data.

    >>> from radplan.engines import ENGINES
    >>> engine_to_spec(ENGINES.get("particle_pencil_beam")(biology="wedenberg"))
    {'name': 'particle_pencil_beam', 'options': {'biology': 'wedenberg'}}
    """
    return {"name": engine.name, "options": engine.to_options()}


def engine_from_spec(spec: Mapping[str, Any]) -> Engine:
    """Return the engine that `engine_to_spec` described.

    Raises
    ------
    UnknownNameError
        When no engine or RBE model has that name.
    InputError
        When an option does not fit.

    >>> from radplan.engines import ENGINES
    >>> engine_from_spec({"name": "particle_pencil_beam", "options": {"biology": "wedenberg"}}).biology
    'wedenberg'
    """
    options = dict(spec.get("options") or {})
    biology = options.get("biology")
    if isinstance(biology, Mapping):
        options["biology"] = RBE_MODELS.get(biology["name"])(**biology.get("parameters", {}))
    cls = ENGINES.get(spec["name"])
    known = [entry.name for entry in fields(cls) if entry.init]  # type: ignore[arg-type]
    for name in options:
        if name not in known:
            raise UnknownNameError(f"option of the engine {cls.name!r}", name, known)
    return cls(**options)


def check_options(engine: Engine, positive: Sequence[str] = (), switches: Sequence[str] = ()) -> None:
    """Raise `InputError` unless options of an engine are numbers > 0, or None where that is the default, or switches.

    Parameters
    ----------
    engine : Engine
        What has the options.
    positive : sequence of str
        Those that are lengths or other numbers > 0 and finite.
    switches : sequence of str
        Those that are True or False, or None where that is the default.
    """
    defaults = {entry.name: entry.default for entry in fields(engine)}  # type: ignore[arg-type]
    for name in positive:
        value = vars(engine)[name]
        if value is None and defaults[name] is None:
            continue
        number = isinstance(value, Real) and not isinstance(value, bool)
        if not (number and math.isfinite(value) and value > 0):
            raise InputError(f"{name} of the engine {engine.name!r} must be a number > 0 and finite, got {value!r}")
    for name in switches:
        if vars(engine)[name] is None and defaults[name] is None:
            continue
        if not isinstance(vars(engine)[name], bool | np.bool_):
            raise InputError(f"{name} of the engine {engine.name!r} must be True or False, got {vars(engine)[name]!r}")


def find_engine(engine: str | Engine | None, radiation: str) -> Engine:
    """Return the engine asked for, or the one for a radiation, after a check that it calculates that radiation.

    >>> find_engine(None, "photons").name
    'photon_pencil_beam'
    """
    if engine is None:
        name = DEFAULT_ENGINES.get(radiation)
        if name is None:
            ENGINES.load_entry_points()
            able = [cls.name for cls in ENGINES if radiation in cls.radiation]
            if len(able) != 1:
                raise InputError(
                    f"no default engine calculates {radiation}: give engine=, "
                    + (f"one of {', '.join(able)}" if able else f"none of {', '.join(ENGINES.names())} does")
                )
            name = able[0]
        chosen = ENGINES.get(name)()
    elif isinstance(engine, str):
        chosen = ENGINES.get(engine)()
    elif isinstance(engine, Engine):
        chosen = engine
    else:
        raise InputError(
            f"engine must be a name, an Engine or None, got {engine!r}; known: {', '.join(ENGINES.names())}"
        )
    if radiation not in chosen.radiation:
        raise InputError(
            f"the engine {chosen.name!r} calculates {', '.join(chosen.radiation)}, but the machine delivers {radiation}"
        )
    return chosen


def check_beams(beams: Beams, machine: Machine) -> None:
    """Raise `InputError` unless the beams hold bixels or spots and were made for the machine."""
    if not isinstance(beams, Beams):
        raise InputError(f"beams must be Beams, got {type(beams).__name__}; of a DeliveryPlan call forward_model")
    if beams.count == 0:
        raise InputError("the beams have no bixels: place them on a target or give a ray list")
    if beams.radiation != machine.radiation:
        raise InputError(
            f"the beams are of {beams.radiation}, but machine {machine.name!r} delivers {machine.radiation}"
        )
    if beams.machine != machine.name:
        raise InputError(
            f"the beams were placed for machine {beams.machine!r}, but the machine given is {machine.name!r}: "
            "place them again for this one, or give machine= to Beams.from_rays"
        )
    for beam in beams:
        if abs(beam.sad - machine.sad) > 1e-6:
            raise InputError(
                f"the beam at gantry {beam.gantry:g} has SAD {beam.sad:g} mm, "
                f"but machine {machine.name!r} has {machine.sad:g} mm"
            )
