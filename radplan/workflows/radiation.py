"""What a plan file leaves to the radiation: machine, beams, engine, biology, and the quantity of the prescription."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from radplan.beams.range_shifter import RangeShifter
from radplan.biology.rbe import RBE_MODELS, RBEModel
from radplan.engines import ENGINES, Engine
from radplan.engines.base import Machine, find_engine
from radplan.engines.particle.pencil_beam import ParticlePencilBeam
from radplan.engines.particle.tables import LET_DETAILS
from radplan.engines.photon.terms import scales_with_density
from radplan.errors import InputError, UnknownNameError
from radplan.io.plan_file.reading import PlanSpec
from radplan.io.plan_file.sections import BeamsSpec, BiologySpec
from radplan.machines.files import GENERIC
from radplan.machines.photon import PhotonMachine
from radplan.patient.patient import Patient
from radplan.quantities import QUANTITIES
from radplan.registry import checked_options

OPPOSED = (90.0, 270.0)
"""Where particles come from when a plan file does not say: both sides."""


def machine_name(spec: PlanSpec) -> str:
    """Return the machine that the specification names, or the built-in one of its radiation; photons if neither.

    Raises
    ------
    UnknownNameError
        When no radiation has that name.

    >>> from radplan.io.plan_file.reading import plan_spec
    >>> machine_name(plan_spec({"radiation": "carbon"}))
    'generic_carbon'
    """
    radiation = spec.radiation or "photons"
    if spec.machine is not None:
        return spec.machine
    if radiation not in GENERIC:
        raise UnknownNameError("radiation with a built-in machine", radiation, GENERIC)
    return GENERIC[radiation]


def check_radiation(spec: PlanSpec, machine: Machine) -> None:
    """Raise `InputError` for another radiation than the machine delivers."""
    if spec.radiation is not None and spec.radiation != machine.radiation:
        raise InputError(
            f"radiation: {spec.radiation}, but machine {machine.name!r} delivers {machine.radiation}: leave one out"
        )


def check_density_scaling(spec: PlanSpec, patient: Patient, machine: PhotonMachine) -> None:
    """Raise `InputError` where bixels are asked for a density scaling that leaves and jaws would not get."""
    asked, given = spec.engine.options.get("density_scaling"), scales_with_density(patient, machine)
    if spec.delivery.technique != "fluence" and asked not in (None, given):
        raise InputError(
            f"engine: density_scaling: {str(asked).lower()} is for bixels alone; leaves and jaws of "
            f"{spec.delivery.technique} are calculated {'with' if given else 'without'} it, as machine and contoured "
            "lungs say: leave it out here, and calculate the file with radplan recalc --density-scaling or "
            "--no-density-scaling"
        )


def beam_settings(wish: BeamsSpec, machine: Machine) -> dict[str, Any]:
    """Return the arguments of `place_beams` that a plan file means for a machine.

    Raises
    ------
    InputError
        When spots are spaced for a machine that has none.

    >>> from radplan.machines import library_machine
    >>> beam_settings(BeamsSpec(spot_spacing=7), library_machine("generic_proton"))["gantry"]
    (90.0, 270.0)
    """
    photons = machine.radiation == "photons"
    if photons and wish.spot_spacing is not None:
        raise InputError(
            f"beams: spot_spacing is for particles, but {machine.name!r} delivers photons: write bixel_width"
        )
    shifter = wish.range_shifter
    return {
        "gantry": wish.gantry if photons or "gantry" in wish.model_fields_set else OPPOSED,
        "couch": wish.couch,
        "collimator": wish.collimator,
        "bixel_width": wish.bixel_width if wish.spot_spacing is None else wish.spot_spacing,
        "isocenter": wish.isocenter,
        "margin": wish.margin,
        "setup_margin": wish.setup_margin,
        "range_margin": wish.range_margin,
        "targets": wish.targets,
        "layer_spacing": wish.layer_spacing,
        "range_shifter": None if shifter is None else RangeShifter(shifter.thickness, shifter.isocenter_distance),
    }


def wanted_engine(spec: PlanSpec, machine: Machine) -> Engine:
    """Return the engine with its options and biology; the usual one of the machine's radiation when none is named.

    Raises
    ------
    UnknownNameError
        When no engine, option, RBE model or coefficient has such a name; gives the nearest.
    InputError
        When the engine has no biology, the model was made for another radiation, or needs what the machine lacks.
    """
    wish = spec.engine
    cls = ENGINES.get(wish.name) if wish.name is not None else type(find_engine(None, machine.radiation))
    options = dict(wish.options)
    if isinstance(options.get("biology"), Mapping):
        options["biology"] = rbe_model(BiologySpec.model_validate(options["biology"]))
    if spec.biology is not None:
        if "biology" in options:
            raise InputError("the biology stands twice, in the engine's options and beside them: leave one out")
        if "biology" not in [entry.name for entry in fields(cls)]:  # type: ignore[arg-type]
            raise InputError(f"biology: the engine {cls.name!r} knows none, it is for {', '.join(cls.radiation)}")
        options["biology"] = rbe_model(spec.biology) if isinstance(spec.biology, BiologySpec) else None
    engine: Engine = find_engine(made(cls, "engine", options), machine.radiation)
    engine.images_for(machine)
    return engine


def rbe_model(wish: BiologySpec) -> RBEModel:
    """Return the RBE model of that name with the coefficients given.

    Raises
    ------
    UnknownNameError
        When no model or coefficient has such a name.

    >>> rbe_model(BiologySpec(name="mcnamara", parameters={"p0": 0.999064})).p0
    0.999064
    """
    model: RBEModel = made(RBE_MODELS.get(wish.name), "RBE model", wish.parameters)
    return model


def prescribed_in(spec: PlanSpec, machine: Machine, engine: Engine) -> str:
    """Return the quantity of the prescription: as the plan file says, else RBE-weighted dose of ions with biology."""
    if spec.quantity is not None:
        return QUANTITIES.get(spec.quantity).name
    if machine.radiation == "photons" or not _has_biology(machine, engine):
        return "physical_dose"
    return "rbe_x_dose"


def check_reach(names: Iterable[str], machine: Machine, engine: Engine) -> None:
    """Raise `InputError` where a quantity needs an image that the engine will not give for the machine.

    Parameters
    ----------
    names : iterable of str
        Registered quantities.
    machine : Machine
        What delivers.
    engine : Engine
        What calculates.
    """
    images = engine.images_for(machine)
    advice = {
        "dirty_dose": "give the LET above which dose is dirty, engine: {options: {let_threshold: 2.5}} [keV/um]",
        **dict.fromkeys(LET_DETAILS, "ask for them, engine: {options: {let_details: true}}"),
        "let_dose": f"{machine.radiation} of machine {machine.name!r} have no LET here",
    }
    for name in names:
        for image in _images_of(name):
            if image not in images and image in advice:
                raise InputError(f"{name!r} needs {image!r}, which the engine does not give: {advice[image]}")
            if image not in images and image in ("alpha_dose", "sqrt_beta_dose") and not _has_biology(machine, engine):
                known = ", ".join(RBE_MODELS.names())
                raise InputError(
                    f"{name!r} needs a biology, and this plan has none: name an RBE model with biology: ({known})"
                )


def made(cls: Any, kind: str, options: Mapping[str, Any]) -> Any:
    """Return an instance of a registered class with its options, refusing those it does not have.

    >>> from radplan.biology.rbe import ConstantRBE
    >>> made(ConstantRBE, "RBE model", {"value": 1.0}).value
    1.0
    """
    known = [entry.name for entry in fields(cls) if entry.init]
    for key in options:
        if key not in known:
            raise UnknownNameError(f"option of the {kind} {cls.name!r}", key, known)
    checked = checked_options(cls, f"option of the {kind} {cls.name!r}", options)
    try:
        return cls(**checked)
    except TypeError as error:
        raise InputError(f"options {checked} of the {kind} {cls.name!r} cannot be used: {error}") from error


def _has_biology(machine: Machine, engine: Engine) -> bool:
    if machine.radiation == "photons":
        return True
    if "alpha_dose" in engine.images_for(machine) or not isinstance(engine, ParticlePencilBeam):
        return True
    return engine.rbe_model(machine) is not None  # type: ignore[arg-type]


def _images_of(name: str, seen: tuple[str, ...] = ()) -> set[str]:
    """Names of the quantities and images at the bottom of a quantity, and of biology on the way."""
    if name not in QUANTITIES:
        return {name}
    needs = QUANTITIES.get(name).needs
    if name in needs or name in seen:
        return {name}
    found = {name} if name in ("alpha_dose", "sqrt_beta_dose") else set()
    return found.union(*(_images_of(need, (*seen, name)) for need in needs))
