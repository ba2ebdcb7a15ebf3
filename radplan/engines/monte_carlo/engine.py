"""Monte Carlo programs as registered engines: the dose of given apertures or spots, without a gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from radplan.arrays import Array, to_numpy
from radplan.beams.beam import Beams
from radplan.beams.control_points import DeliveryPlan
from radplan.engines.aperture.model import aperture_model_of
from radplan.engines.aperture.options import ApertureOptions
from radplan.engines.base import ENGINES, Engine, Machine, check_options
from radplan.engines.monte_carlo.fluence import fluence_maps
from radplan.engines.monte_carlo.photons import pyradmc_module, simulate_photons
from radplan.engines.monte_carlo.protons import simulate_protons
from radplan.engines.monte_carlo.simulated import SimulatedDose
from radplan.engines.scope import Scope
from radplan.errors import InputError, UnknownNameError
from radplan.influence import Rows, RowsModel, Variables
from radplan.machines.mlc import MLC, library_mlc
from radplan.machines.particle import ParticleMachine
from radplan.machines.photon import PhotonMachine
from radplan.patient.patient import Patient


@dataclass(frozen=True, eq=False)
class SimulatedModel(RowsModel):
    """A forward model that simulates the dose of variables each time it is asked, with statistical noise.

    Every call of `forward` is a simulation: evaluate a plan once and keep its dose.

    Parameters
    ----------
    rows : Rows
        Voxels, voxel parameters and grid.
    variables : Variables
        Of what is delivered.
    radiation : str
        What is delivered.
    simulate : callable
        Variables (count,) -> `SimulatedDose` on the whole grid.
    """

    rows: Rows
    variables: Variables
    radiation: str
    simulate: Callable[[npt.NDArray[np.float64]], SimulatedDose]

    @property
    def images(self) -> tuple[str, ...]:
        """Physical dose alone."""
        return ("physical_dose",)

    def forward(self, x: Array, images: Iterable[str] | None = None) -> dict[str, Array]:
        """Return the simulated dose ``(1, n)`` at variables ``(count,)``."""
        for name in self.images if images is None else images:
            if name not in self.images:
                raise UnknownNameError("image of a simulated dose", name, self.images)
        dose = self.simulate(np.asarray(to_numpy(x), dtype=np.float64)).dose.reshape(-1)[to_numpy(self.voxels)]
        return {"physical_dose": self.device.asarray(dose[None, :], self.dtype)}

    def pullback(self, x: Array, cotangents: Mapping[str, Array]) -> Array:
        """Raise an `InputError`: noise has no gradient."""
        raise InputError(
            "a simulated dose has no gradient: optimise with another engine, and give its variables to this one "
            "(radplan.evaluate)"
        )


@ENGINES.register
@dataclass(frozen=True)
class PhotonMonteCarlo(Engine):
    """Photon dose of leaves, jaws and monitor units by pyRadMC (extra ``mc``): `SimulatedModel`.

    The fluence behind leaves and jaws is that of `PhotonAperture`; photons and electrons are transported in water of
    the CT's density. See `radplan.engines.monte_carlo.photons.simulate_photons`.

    Parameters
    ----------
    histories : int
        Photons, >= 1000.
    seed : int
        Of the random numbers.
    backend : str
        ``"cpu"`` or ``"cuda:0"``.
    mlc : str, optional
        Name of the collimator; the known one with the plan's leaf boundaries when left out.

    Raises
    ------
    UnknownNameError
        When no collimator has that name.

    Notes
    -----
    Source: pyRadMC 0.2.1 (github.com/e0404/pyRadMC, Apache-2.0).

    >>> PhotonMonteCarlo(histories=2e7).histories
    20000000
    """

    histories: int = 10_000_000
    seed: int = 1
    backend: str = "cpu"
    mlc: str | None = None

    name: ClassVar[str] = "photon_monte_carlo"
    radiation: ClassVar[tuple[str, ...]] = ("photons",)
    delivers: ClassVar[bool] = True
    simulates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_histories(self)
        if self.mlc is not None:
            library_mlc(self.mlc)

    @classmethod
    def examples(cls) -> list[Self]:
        return [cls(histories=1000)]

    def images_for(self, machine: Machine) -> tuple[str, ...]:
        return ("physical_dose",)

    def influence(self, patient: Patient, beams: Any, machine: Machine, scope: Scope) -> SimulatedModel:
        if not isinstance(machine, PhotonMachine) or not isinstance(beams, DeliveryPlan):
            raise InputError(
                f"the engine {self.name!r} simulates what a linac delivers: give a PhotonMachine and a DeliveryPlan, "
                "as place_fields, place_arc or read_plan make it"
            )
        _check_nominal(self, scope)
        pyradmc_module()
        collimator: MLC | None = None if self.mlc is None else library_mlc(self.mlc)
        apertures = aperture_model_of(patient, beams, machine, collimator, ApertureOptions(), scope)

        def simulated(x: npt.NDArray[np.float64]) -> SimulatedDose:
            maps = fluence_maps(apertures, x, machine.sad)
            return simulate_photons(patient, maps, machine, scope.grid, self.histories, self.seed, self.backend)

        return SimulatedModel(apertures.rows, apertures.variables, "photons", simulated)


@ENGINES.register
@dataclass(frozen=True)
class ProtonMonteCarlo(Engine):
    """Proton dose of spots by MCsquare, a program unpacked from a wheel: `SimulatedModel`.

    See `radplan.engines.monte_carlo.protons.simulate_protons`.

    Parameters
    ----------
    program : path-like
        opentps-core wheel, or the folder of MCsquare unpacked from one; it has to be given.
    histories : int
        Protons, >= 1000.
    seed, threads : int
        Of the random numbers; threads to use.

    Notes
    -----
    Source: Souris, Lee, Sterpin, Med. Phys. 43 (2016) 1700; MCsquare, Apache-2.0.

    >>> ProtonMonteCarlo(histories=1e6).histories
    1000000
    """

    program: str | Path | None = None
    histories: int = 1_000_000
    seed: int = 1
    threads: int = 1

    name: ClassVar[str] = "proton_monte_carlo"
    radiation: ClassVar[tuple[str, ...]] = ("protons",)
    simulates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_histories(self)

    @classmethod
    def examples(cls) -> list[Self]:
        return [cls(histories=1000)]

    def images_for(self, machine: Machine) -> tuple[str, ...]:
        return ("physical_dose",)

    def influence(self, patient: Patient, beams: Any, machine: Machine, scope: Scope) -> SimulatedModel:
        if not isinstance(machine, ParticleMachine) or not isinstance(beams, Beams):
            raise InputError(f"the engine {self.name!r} simulates spots: give a ParticleMachine and Beams of spots")
        _check_nominal(self, scope)
        if self.program is None:
            raise InputError(
                f"the engine {self.name!r} needs program=, an opentps-core wheel that holds MCsquare (pip download "
                "--no-deps opentps-core)"
            )
        program = self.program

        def simulated(x: npt.NDArray[np.float64]) -> SimulatedDose:
            return simulate_protons(
                patient, beams, machine, x, scope.grid, program, self.histories, self.seed, self.threads
            )

        variables = Variables(beams.count, labels=("spot weight [1e6 particles]",), groups=beams.ray_index)
        return SimulatedModel(scope.rows(patient, rbe=1.1), variables, "protons", simulated)


def _check_histories(engine: PhotonMonteCarlo | ProtonMonteCarlo) -> None:
    check_options(engine, ("histories",))
    object.__setattr__(engine, "histories", int(engine.histories))


def _check_nominal(engine: Engine, scope: Scope) -> None:
    """Raise an InputError where radiological depths are misjudged on purpose; shifts are in the beams already."""
    if scope.error.relative_range != 0.0 or scope.error.absolute_range != 0.0:
        raise InputError(f"the engine {engine.name!r} knows no range errors: leave them out of the scenarios")
