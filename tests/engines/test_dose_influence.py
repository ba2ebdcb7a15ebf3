"""The one call: which engine is taken, which grid and voxels, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from radplan.beams import Beams
from radplan.engines import ENGINES, Engine, PhotonPencilBeam, dose_influence
from radplan.engines.base import find_engine
from radplan.errors import InputError, UnknownNameError
from radplan.geometry import Grid
from radplan.influence import Scenarios
from radplan.machines import library_machine
from tests import small_case


@pytest.fixture(scope="module")
def patient():
    return small_case.patient()


@pytest.fixture(scope="module")
def machine():
    return library_machine("generic_photon_6mv")


@pytest.fixture(scope="module")
def beams():
    return small_case.beams()


def test_the_grid_is_a_spacing_or_a_grid(patient, beams, machine):
    dij = dose_influence(patient, beams, machine, grid=10.0)
    assert dij.grid == patient.ct.grid.with_spacing(10.0)
    grid = Grid((2, 3, 2), (7.0, 7.0, 7.0), (0.0, 0.0, 0.0))
    assert dose_influence(patient, beams, machine, grid=grid).grid == grid


def test_voxels_are_the_body_or_those_given(patient, beams, machine):
    whole = dose_influence(patient, beams, machine, grid=5.0)
    np.testing.assert_array_equal(whole.voxels, patient.body_voxels(whole.grid))
    some = dose_influence(patient, beams, machine, grid=5.0, voxels=whole.voxels[10:40:3])
    w = np.linspace(0.5, 1.0, beams.count)
    np.testing.assert_array_equal(some.forward(w)["physical_dose"][0], whole.forward(w)["physical_dose"][0, 10:40:3])


def test_voxel_parameters_are_those_of_photons(patient, beams, machine):
    dij = dose_influence(patient, beams, machine, grid=5.0)
    expected = patient.voxel_parameters(dij.grid, dij.voxels)
    assert set(dij.voxel_parameters) == {"alpha_x", "beta_x", "rbe"}
    np.testing.assert_allclose(dij.voxel_parameters["alpha_x"], expected["alpha_x"], rtol=1e-6)
    np.testing.assert_allclose(dij.voxel_parameters["beta_x"], expected["beta_x"], rtol=1e-6)
    np.testing.assert_array_equal(dij.voxel_parameters["rbe"], np.ones((1, dij.voxels.size)))
    assert dij.beam_index.tolist() == [0, 0, 0, 1, 1, 1]
    assert (dij.radiation, dij.machine, dij.images) == ("photons", machine.name, ("physical_dose",))


def test_it_lives_where_it_is_asked_to(patient, beams, machine, xp_device):
    reference = dose_influence(patient, beams, machine, grid=10.0)
    dij = dose_influence(patient, beams, machine, grid=10.0, device=xp_device.name, dtype="float64")
    assert dij.device.name == xp_device.name
    x = xp_device.asarray(np.ones(beams.count), "float64")
    dose = dij.forward(x)["physical_dose"]
    from radplan.arrays import to_numpy

    assert to_numpy(dose).dtype == np.float64
    expected = reference.forward(np.ones(beams.count))["physical_dose"]
    np.testing.assert_allclose(to_numpy(dose), expected, rtol=1e-5)


@pytest.mark.parametrize("engine", [None, "photon_pencil_beam", PhotonPencilBeam()])
def test_an_engine_is_chosen_named_or_given(engine):
    assert find_engine(engine, "photons") == PhotonPencilBeam()


def test_engines_that_cannot_be_used(patient, beams, machine):
    with pytest.raises(UnknownNameError, match="did you mean 'photon_pencil_beam'"):
        dose_influence(patient, beams, machine, engine="photon_pencilbeam")
    with pytest.raises(InputError, match="no default engine calculates neutrons"):
        find_engine(None, "neutrons")
    with pytest.raises(InputError, match="calculates photons, but the machine delivers protons"):
        find_engine("photon_pencil_beam", "protons")
    with pytest.raises(InputError, match="must be a name, an Engine or None"):
        find_engine(3, "photons")


def test_a_users_engine_joins_by_registration(patient, beams, machine):
    @dataclass(frozen=True)
    class Uniform(Engine):
        """Every bixel gives every voxel 1 Gy."""

        name = "uniform_for_a_test"
        radiation = ("photons",)

        @classmethod
        def examples(cls):
            return [cls()]

        def images_for(self, machine):
            return ("physical_dose",)

        def influence(self, patient, beams, machine, scope):
            from radplan.influence import Dij

            ones = np.ones((scope.voxels.size, beams.count))
            return Dij.from_matrices(
                {"physical_dose": ones}, scope.grid, scope.voxels, device=scope.device, dtype=scope.dtype
            )

    assert Uniform.name not in ENGINES
    dij = dose_influence(patient, beams, machine, grid=10.0, engine=Uniform())
    assert dij.forward(np.ones(beams.count))["physical_dose"].max() == 6.0


def test_beams_of_another_machine_are_refused(patient, beams, machine):
    with pytest.raises(InputError, match="placed for machine 'other', but the machine given is 'generic_photon_6mv'"):
        dose_influence(patient, replace(beams, machine="other"), machine)
    with pytest.raises(InputError, match="beams are of protons"):
        dose_influence(patient, replace(beams, radiation="protons"), machine)
    far = Beams(tuple(replace(beam, sad=1200.0) for beam in beams), "photons", machine.name)
    with pytest.raises(InputError, match="SAD 1200 mm, but machine 'generic_photon_6mv' has 1000 mm"):
        dose_influence(patient, far, machine)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float16"}, "dtype must be 'float32' or 'float64'"),
        ({"scenarios": Scenarios(("nominal", "shift"), (0.5, 0.5))}, "do not say what goes wrong"),
        ({"scenarios": "axes"}, "scenarios must be Scenarios or None"),
        ({"stored": "yes"}, "stored must be True or False"),
        ({"voxels": "all"}, "voxels must be 'body' or flat grid indices"),
        ({"voxels": [3, 2]}, "sorted flat grid indices without repeats"),
        ({"voxels": [0, 10**9]}, "on the dose grid"),
        ({"voxels": np.asarray([0.5])}, "whole numbers"),
        ({"grid": -1.0}, "spacing must be > 0"),
        ({"engine": PhotonPencilBeam(lateral_cutoff=1e-3), "voxels": [0]}, "no bixel gives dose"),
    ],
)
def test_options_that_cannot_be_used(patient, beams, machine, options, message):
    with pytest.raises(InputError if "no bixel" not in message else RuntimeError, match=message):
        dose_influence(patient, beams, machine, **{"grid": 10.0, **options})


def test_a_beam_past_the_patient_is_refused(patient, machine):
    aside = Beams.from_rays(
        [[[500.0, 0.0]]], gantry=0.0, isocenter=(0.0, 0.0, 0.0), sad=1000.0, bixel_width=5.0, machine=machine.name
    )
    with pytest.raises(InputError, match="no bixel of the beam at gantry 0, couch 0 meets the patient"):
        dose_influence(patient, aside, machine, grid=10.0)
