"""The check of an engine: what it promises of images, voxels and models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from radplan.arrays import to_numpy
from radplan.beams import Beams, DeliveryPlan, place_beams, place_fields
from radplan.engines import ENGINES, Engine, dose_influence, forward_model
from radplan.engines.base import Machine
from radplan.errors import InputError
from radplan.influence import ForwardModel, Scenarios
from radplan.machines import ParticleMachine, PhotonMachine, library_machine, library_mlc
from radplan.machines.files import GENERIC
from radplan.patient import Patient
from radplan.patient.phantoms import phantom
from radplan.testing.arrays import assert_close, examples_of, wanted_devices, widest
from radplan.testing.models import check_model


def check_engine(
    engine: str | type[Engine] | Engine,
    patient: Patient | None = None,
    beams: Beams | DeliveryPlan | None = None,
    machine: Machine | None = None,
    devices: Iterable[str] | None = None,
) -> None:
    """Check an engine: what it states, the forward model it makes, and that every device gives the same dose.

    Parameters
    ----------
    engine : str, class or Engine
        A registered name or a class, whose `examples` are checked, or one instance.
    patient, beams, machine : optional
        The case. Left out, they are a water box, two beams, and a built-in machine of photons or protons.
    devices : iterable of str, optional
        Device strings; all that this machine has when left out.

    Raises
    ------
    AssertionError
        When a promise is broken.
    """
    water = phantom("box") if patient is None else patient
    examples = examples_of(engine, ENGINES, Engine)
    source = _machine_for(examples[0]) if machine is None else machine
    fields = _fields_for(examples[0], water, source) if beams is None else beams
    for example in examples:
        if example.simulates:
            _check_simulated(example, water, fields, source)
            continue
        label, doses = f"engine {example!r}", []
        for name in wanted_devices(devices):
            model = _model_of(example, water, fields, source, device=name)
            assert set(model.images) == set(example.images_for(source)), (
                f"{label} gives the images {model.images} and states {example.images_for(source)}"
            )
            count = fields.count if isinstance(fields, Beams) else model.variables.count
            assert (model.radiation, model.variables.count) == (source.radiation, count), (
                f"{label} must make a model of {source.radiation} with {count} weights, got {model.radiation} "
                f"with {model.variables.count}"
            )
            for parameter in ("alpha_x", "beta_x", *(("rbe",) if source.radiation == "photons" else ())):
                assert parameter in model.voxel_parameters, f"{label} must give the voxel parameter {parameter!r}"
            check_model(model, _start(model))
            begin = model.device.asarray(_start(model), widest(model.device))
            doses.append(to_numpy(model.forward(begin, ["physical_dose"])["physical_dose"]))
            assert doses[-1].max() > 0.0, f"{label} gives no dose at all"
            least = 0.0 if model.linear else -1e-4 * doses[-1].max()
            assert doses[-1].min() >= least, f"{label} gives negative dose, down to {doses[-1].min():g} Gy"
            assert_close(doses[-1], doses[0], 1e-4, f"{label} on {name} beside {wanted_devices(devices)[0]}")
        _check_range_error(example, water, fields, source, label)


def _check_simulated(engine: Engine, patient: Patient, beams: Beams | DeliveryPlan, machine: Machine) -> None:
    """Check what a Monte Carlo states; it is not run. Where its program is missing, the error says how to get it."""
    model, told = None, ""
    try:
        model = forward_model(patient, beams, machine, grid=30.0, engine=engine)
        model.pullback(_start(model), {})
    except InputError as error:
        told = str(error)
    if model is None:
        assert "pip " in told, f"engine {engine!r} must say how to get its program, it says: {told}"
        return
    assert set(model.images) == set(engine.images_for(machine)), f"engine {engine!r} gives {model.images}"
    assert "no gradient" in told, f"engine {engine!r} simulates and must refuse a gradient; it says: {told}"


def _machine_for(engine: Engine) -> Machine:
    """Return a built-in machine of the first radiation that has one."""
    for radiation in engine.radiation:
        if radiation in GENERIC:
            return library_machine(GENERIC[radiation])
    raise InputError(f"no built-in machine delivers {', '.join(engine.radiation)}: give machine= and beams=")


def _fields_for(engine: Engine, patient: Patient, machine: Machine) -> Beams | DeliveryPlan:
    """Return two beams of wide bixels or spots, or a static field for an engine of what a linac delivers."""
    if isinstance(machine, PhotonMachine) and engine.delivers:
        return place_fields(patient, machine, library_mlc("Agility"), gantry=90.0)
    if isinstance(machine, PhotonMachine | ParticleMachine):
        return place_beams(patient, machine, gantry=(0.0, 90.0), bixel_width=20.0)
    raise InputError(f"give the beams to check an engine with machine {machine.name!r}, a {type(machine).__name__}")


def _model_of(
    engine: Engine, patient: Patient, beams: Beams | DeliveryPlan, machine: Machine, **options: Any
) -> ForwardModel:
    if isinstance(beams, DeliveryPlan):
        # Why: what is not linear is checked by finite differences, which float32 is too coarse for.
        return forward_model(patient, beams, machine, grid=30.0, engine=engine, dtype="float64", **options)
    return dose_influence(patient, beams, machine, grid=15.0, engine=engine, **options)


def _start(model: ForwardModel) -> Any:
    """Return variables to check at, on the host: the model's start."""
    return np.array(np.broadcast_to(to_numpy(model.variables.start), (model.variables.count,)), dtype="float64")


def _check_range_error(
    engine: Engine, patient: Patient, beams: Beams | DeliveryPlan, machine: Machine, label: str
) -> None:
    """Assert that depths which are 30 % longer change the dose, and that the nominal case is as it was."""
    cases = Scenarios.setup_and_range(setup=0.0, range=0.3)
    models = [_model_of(engine, patient, beams, machine, scenarios=scenarios) for scenarios in (None, cases)]
    nominal, dose = (to_numpy(model.forward(_start(model))["physical_dose"]) for model in models)
    assert dose.shape[0] == len(cases), f"{label} gives {dose.shape[0]} cases for {len(cases)} scenarios"
    assert_close(dose[0], nominal[0], 1e-6, f"{label}: the nominal case among others beside itself alone")
    change = float(np.abs(dose[2] - dose[0]).max() / dose[0].max())
    assert change > 0.01, (
        f"{label}: depths 30 % longer change no dose by more than {100 * change:.2f} % of the maximum: pass depths "
        "through scope.error.depths"
    )
