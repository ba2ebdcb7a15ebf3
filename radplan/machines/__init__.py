"""Treatment machines: what an engine and a planner need to know about them."""

from __future__ import annotations

from radplan.machines.base import KernelBasis, PencilKernel, Reference
from radplan.machines.beam_model import BeamModel, read_beam_model
from radplan.machines.collimation import Collimation
from radplan.machines.emittance import Emittance
from radplan.machines.files import (
    MACHINES,
    library_machine,
    read_photon_machine,
    read_radplan_machine,
    write_photon_machine,
)
from radplan.machines.limits import (
    MachineLimits,
    leaf_limits,
    library_limits,
    limits_for,
    limits_with,
    machine_limits,
    read_limits,
)
from radplan.machines.low_rank import LowRankKernel
from radplan.machines.mlc import MLC, MLCS, library_mlc, matching_mlc
from radplan.machines.particle import RADIATIONS, EnergyLayer, InitialFocus, ParticleMachine
from radplan.machines.particle_adapted import at_energies, of_primaries, scanned_from
from radplan.machines.particle_file import read_particle_machine, write_particle_machine
from radplan.machines.photon import PhotonMachine
from radplan.machines.ssd_table import ExponentialBasis, SSDTableKernel

__all__ = [
    "MACHINES",
    "MLC",
    "MLCS",
    "RADIATIONS",
    "BeamModel",
    "Emittance",
    "Collimation",
    "EnergyLayer",
    "ExponentialBasis",
    "InitialFocus",
    "KernelBasis",
    "LowRankKernel",
    "MachineLimits",
    "ParticleMachine",
    "PencilKernel",
    "PhotonMachine",
    "Reference",
    "SSDTableKernel",
    "at_energies",
    "leaf_limits",
    "library_limits",
    "library_machine",
    "library_mlc",
    "limits_for",
    "limits_with",
    "machine_limits",
    "matching_mlc",
    "of_primaries",
    "read_beam_model",
    "read_limits",
    "read_particle_machine",
    "read_photon_machine",
    "read_radplan_machine",
    "scanned_from",
    "write_particle_machine",
    "write_photon_machine",
]
