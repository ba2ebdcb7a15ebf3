"""The check of an engine: what it promises of images, voxels and models."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from radplan.arrays import to_numpy
from radplan.beams import Beams, place_beams
from radplan.engines import ENGINES, Engine, dose_influence
from radplan.engines.base import Machine
from radplan.errors import InputError
from radplan.influence import Scenarios
from radplan.machines import ParticleMachine, PhotonMachine, library_machine
from radplan.patient import Patient
from radplan.patient.phantoms import phantom
from radplan.testing.arrays import assert_close, examples_of, wanted_devices, widest
from radplan.testing.models import check_model

_BUILT_IN = {
    "photons": "generic_photon_6mv",
    "protons": "generic_proton",
    "helium": "generic_helium",
    "carbon": "generic_carbon",
}


def check_engine(
    engine: str | type[Engine] | Engine,
    patient: Patient | None = None,
    beams: Beams | None = None,
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
    if beams is not None:
        fields = beams
    elif isinstance(source, PhotonMachine | ParticleMachine):
        fields = place_beams(water, source, gantry=(0.0, 90.0), bixel_width=20.0)
    else:
        raise InputError(f"give the beams to check an engine with machine {source.name!r}, a {type(source).__name__}")
    for example in examples:
        label, doses = f"engine {example!r}", []
        for name in wanted_devices(devices):
            model = dose_influence(water, fields, source, grid=15.0, engine=example, device=name, dtype="float32")
            assert set(model.images) == set(example.images_for(source)), (
                f"{label} gives the images {model.images} and states {example.images_for(source)}"
            )
            assert (model.radiation, model.variables.count) == (source.radiation, fields.count), (
                f"{label} must make a model of {source.radiation} with {fields.count} weights, got {model.radiation} "
                f"with {model.variables.count}"
            )
            for parameter in ("alpha_x", "beta_x", *(("rbe",) if source.radiation == "photons" else ())):
                assert parameter in model.voxel_parameters, f"{label} must give the voxel parameter {parameter!r}"
            check_model(model)
            ones = model.device.asarray(np.ones(fields.count), widest(model.device))
            doses.append(to_numpy(model.forward(ones, ["physical_dose"])["physical_dose"]))
            assert doses[-1].min() >= 0.0, f"{label} gives negative dose, down to {doses[-1].min():g} Gy"
            assert doses[-1].max() > 0.0, f"{label} gives no dose at all"
            assert_close(doses[-1], doses[0], 1e-4, f"{label} on {name} beside {wanted_devices(devices)[0]}")
        _check_range_error(example, water, fields, source, label)


def _machine_for(engine: Engine) -> Machine:
    """Return a built-in machine of the first radiation that has one."""
    for radiation in engine.radiation:
        if radiation in _BUILT_IN:
            return library_machine(_BUILT_IN[radiation])
    raise InputError(f"no built-in machine delivers {', '.join(engine.radiation)}: give machine= and beams=")


def _check_range_error(engine: Engine, patient: Patient, beams: Beams, machine: Machine, label: str) -> None:
    """Assert that depths which are 30 % longer change the dose, and that the nominal case is as it was."""
    cases = Scenarios.setup_and_range(setup=0.0, range=0.3)
    models = [
        dose_influence(patient, beams, machine, grid=15.0, engine=engine, scenarios=scenarios)
        for scenarios in (None, cases)
    ]
    nominal, dose = (to_numpy(model.forward(np.ones(beams.count))["physical_dose"]) for model in models)
    assert dose.shape[0] == len(cases), f"{label} gives {dose.shape[0]} cases for {len(cases)} scenarios"
    assert_close(dose[0], nominal[0], 1e-6, f"{label}: the nominal case among others beside itself alone")
    change = float(np.abs(dose[2] - dose[0]).max() / dose[0].max())
    assert change > 0.01, (
        f"{label}: depths 30 % longer change no dose by more than {100 * change:.2f} % of the maximum: pass depths "
        "through scope.error.depths"
    )
