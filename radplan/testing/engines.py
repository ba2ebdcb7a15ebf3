"""The check of an engine: what it promises of images, voxels and models."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from radplan.arrays import to_numpy
from radplan.beams import Beams, place_beams
from radplan.engines import ENGINES, Engine, dose_influence
from radplan.engines.base import Machine
from radplan.errors import InputError
from radplan.machines import ParticleMachine, PhotonMachine, library_machine
from radplan.patient import Patient
from radplan.patient.phantoms import phantom
from radplan.testing.arrays import assert_close, examples_of, wanted_devices, widest
from radplan.testing.models import check_model


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
    built_in = "generic_photon_6mv" if "photons" in examples[0].radiation else "generic_proton"
    source = library_machine(built_in) if machine is None else machine
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
