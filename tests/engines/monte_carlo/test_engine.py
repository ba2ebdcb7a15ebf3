"""Monte Carlo programs by name: what they need is said, what they give is a dose without a gradient."""

from __future__ import annotations

import numpy as np
import pytest

import radplan as rp
from radplan.engines import PhotonMonteCarlo, ProtonMonteCarlo, forward_model
from radplan.engines.base import engine_from_spec, engine_to_spec
from radplan.engines.monte_carlo.protons import simulate_protons
from radplan.errors import InputError, UnknownNameError
from radplan.influence import Scenarios
from radplan.machines import library_machine
from tests.engines.monte_carlo.test_protons import patient, spots, tool

__all__ = ["tool"]


@pytest.fixture(scope="module")
def machine():
    return library_machine("generic_proton")


def test_names_resolve_and_options_go_there_and_back(tmp_path):
    for engine in (PhotonMonteCarlo(histories=5000, mlc="Agility"), ProtonMonteCarlo("some.whl", seed=3)):
        assert engine_from_spec(engine_to_spec(engine)) == engine
    with pytest.raises(UnknownNameError, match="Agilty"):
        PhotonMonteCarlo(mlc="Agilty")
    with pytest.raises(InputError, match="histories"):
        ProtonMonteCarlo(histories=0)


def test_the_dose_of_given_spots_is_that_of_the_program(machine, tool):
    one, beams, weights = patient(), spots(machine), np.asarray([1.0, 2.0, 0.5])
    engine = ProtonMonteCarlo(tool, histories=1000)
    model = forward_model(one, beams, machine, grid=one.ct.grid, engine=engine, dtype="float64")
    plan = rp.evaluate(model, weights, one, fractions=3)
    alone = simulate_protons(one, beams, machine, weights, one.ct.grid, tool, histories=1000)
    np.testing.assert_allclose(plan["physical_dose"], 3.0 * alone.dose, rtol=1e-6)
    with pytest.raises(InputError, match="no gradient: optimise with another engine"):
        model.pullback(weights, {})
    with pytest.raises(UnknownNameError, match="let_dose"):
        model.forward(weights, ["let_dose"])


def test_what_is_missing_or_not_known_is_one_clear_error(machine, tool):
    one, beams = patient(), spots(machine)
    with pytest.raises(InputError, match="pip download --no-deps opentps-core"):
        forward_model(one, beams, machine, grid=one.ct.grid, engine="proton_monte_carlo")
    with pytest.raises(InputError, match="a SimulatedModel, not a Dij: call forward_model"):
        rp.dose_influence(one, beams, machine, grid=one.ct.grid, engine=ProtonMonteCarlo(tool))
    with pytest.raises(InputError, match="knows no range errors"):
        forward_model(
            one, beams, machine, one.ct.grid, ProtonMonteCarlo(tool), scenarios=Scenarios.setup_and_range(0.0, 0.03)
        )
    linac = library_machine("generic_photon_6mv")
    linac_beams = rp.place_beams(rp.load_patient("box"), linac, gantry=0.0, bixel_width=20.0)
    with pytest.raises(InputError, match="simulates what a linac delivers"):
        forward_model(one, linac_beams, linac, engine="photon_monte_carlo")
