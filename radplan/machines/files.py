"""The shelf of machines that radplan ships, and photon machines on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from radplan.arrays import Array
from radplan.errors import FileError, InputError, UnknownNameError
from radplan.machines.archive import read_archive, require, write_archive
from radplan.machines.base import Reference
from radplan.machines.collimation import Collimation
from radplan.machines.head import Head
from radplan.machines.low_rank import LowRankKernel
from radplan.machines.particle import ParticleMachine
from radplan.machines.particle_file import PARTICLE_FORMAT, particle_machine_from
from radplan.machines.photon import PhotonMachine

FORMAT = "radplan photon machine 1"
_ARRAYS = ("profile_radius", "profile", "radius", "cumulated", "depth", "stretch", "table")
_SCALARS = ("name", "energy", "sad", "source_fwhm", "distance", "provenance", "reference", "head")
_SMALLEST_FIELD = 20.0
"""Smallest field of a machine whose file does not state it [mm]."""

MACHINES: Mapping[str, Path] = MappingProxyType(
    {path.stem: path for path in sorted((Path(__file__).parent / "library").glob("*.npz"))}
)
"""Names of the machines that radplan ships, and their files."""

GENERIC: Mapping[str, str] = MappingProxyType(
    {
        "photons": "generic_photon_6mv",
        "protons": "generic_proton",
        "helium": "generic_helium",
        "carbon": "generic_carbon",
    }
)
"""Which of them a radiation gets where no machine is named."""


def library_machine(name: str) -> PhotonMachine | ParticleMachine:
    """Return a machine that radplan ships.

    Raises
    ------
    UnknownNameError
        When no shipped machine has that name; the message offers the nearest.

    >>> library_machine("generic_photon_6mv").energy
    6.0
    """
    if name not in MACHINES:
        raise UnknownNameError("machine", name, MACHINES)
    return read_radplan_machine(MACHINES[name])


def read_radplan_machine(path: str | Path) -> PhotonMachine | ParticleMachine:
    """Read a machine of any radiation from radplan's own file.

    Raises
    ------
    FileError
        When the file is missing, damaged or no radplan machine.

    >>> read_radplan_machine(MACHINES["generic_photon_6mv"]).name
    'generic_photon_6mv'
    """
    path = Path(path)
    header, content = read_archive(path)
    if header.get("format") == PARTICLE_FORMAT:
        return particle_machine_from(path, header, content)
    return _photon_machine(path, header, content)


def write_photon_machine(machine: PhotonMachine, path: str | Path) -> None:
    """Write a machine with a `LowRankKernel` to a file that `read_photon_machine` takes.

    Raises
    ------
    InputError
        When the machine's kernel is of another kind.
    """
    if not isinstance(machine.kernel, LowRankKernel):
        raise InputError(
            f"machine {machine.name!r} has a {type(machine.kernel).__name__}; only a LowRankKernel has a radplan file"
        )
    header = {
        "format": FORMAT,
        "name": machine.name,
        "energy": machine.energy,
        "sad": machine.sad,
        "source_fwhm": machine.source_fwhm,
        "distance": machine.distance,
        "reference": None if machine.reference is None else asdict(machine.reference),
        "provenance": dict(machine.provenance),
        "head": asdict(machine.head),
    }
    if machine.collimation != Collimation():
        header["collimation"] = asdict(machine.collimation)
    if machine.smallest_field != _SMALLEST_FIELD:
        header["smallest_field"] = machine.smallest_field
    kernel = machine.kernel
    arrays = {
        "profile_radius": machine.profile_radius,
        "profile": machine.profile,
        "radius": kernel.radius,
        "cumulated": kernel.cumulated,
        "depth": kernel.depth,
        "stretch": kernel.stretch,
        "table": np.asarray(kernel.table, dtype=np.float32),
    }
    if kernel.scattered is not None:
        arrays["scattered"] = np.asarray(kernel.scattered, dtype=np.float32)
    write_archive(path, header, arrays)


def read_photon_machine(path: str | Path) -> PhotonMachine:
    """Read a machine that `write_photon_machine` wrote.

    Raises
    ------
    FileError
        When the file is missing, damaged or of another kind.
    """
    return _photon_machine(Path(path), *read_archive(path))


def _photon_machine(path: Path, header: Mapping[str, Any], content: Mapping[str, Array]) -> PhotonMachine:
    require(path, header, FORMAT, _SCALARS, content, _ARRAYS)
    try:
        reference = header["reference"]
        known = [*_ARRAYS[2:], "scattered"] if "scattered" in content else _ARRAYS[2:]
        kernel_arrays = (np.asarray(content[name], dtype=np.float64) for name in known)
        return PhotonMachine(
            name=header["name"],
            energy=float(header["energy"]),
            sad=float(header["sad"]),
            source_fwhm=float(header["source_fwhm"]),
            profile_radius=content["profile_radius"],
            profile=content["profile"],
            kernel=LowRankKernel(*kernel_arrays),
            distance=header["distance"],
            reference=None if reference is None else Reference(**{**reference, "field": tuple(reference["field"])}),
            provenance=header["provenance"],
            head=Head(**header["head"]),
            collimation=Collimation(**header.get("collimation", {})),
            smallest_field=float(header.get("smallest_field", _SMALLEST_FIELD)),
        )
    except (InputError, AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        raise FileError(path, f"holds no valid photon machine: {error}") from error
