"""Photon machines on disk: one npz of arrays with a JSON header, and the shelf of those that radplan ships."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from radplan.arrays import Array
from radplan.errors import FileError, InputError, UnknownNameError
from radplan.machines.base import Reference
from radplan.machines.low_rank import LowRankKernel
from radplan.machines.photon import PhotonMachine

FORMAT = "radplan photon machine 1"
_ARRAYS = ("profile_radius", "profile", "radius", "cumulated", "depth", "stretch", "table")
_SCALARS = ("name", "energy", "sad", "source_fwhm", "distance", "provenance", "reference")

MACHINES: Mapping[str, Path] = MappingProxyType(
    {path.stem: path for path in sorted((Path(__file__).parent / "library").glob("*.npz"))}
)
"""Names of the machines that radplan ships, and their files."""


def library_machine(name: str) -> PhotonMachine:
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
    return read_photon_machine(MACHINES[name])


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
    }
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
    with Path(path).open("wb") as stream:
        np.savez_compressed(stream, header=np.asarray(json.dumps(header, sort_keys=True)), **arrays)


def read_photon_machine(path: str | Path) -> PhotonMachine:
    """Read a machine that `write_photon_machine` wrote.

    Raises
    ------
    FileError
        When the file is missing, damaged or of another kind.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            content: dict[str, Array] = {
                entry.removesuffix(".npy"): np.load(io.BytesIO(archive.read(entry)), allow_pickle=False)
                for entry in archive.namelist()
            }
    except FileNotFoundError as error:
        raise FileError(path, "no such file") from error
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise FileError(path, f"is not a readable radplan machine file ({error})") from error
    header = _header(path, content)
    missing = [name for name in _ARRAYS if name not in content]
    if missing:
        raise FileError(path, f"lacks {', '.join(missing)}: write it with write_photon_machine")
    reference = header["reference"]
    kernel_arrays = (np.asarray(content[name], dtype=np.float64) for name in _ARRAYS[2:])
    try:
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
        )
    except (InputError, TypeError) as error:
        raise FileError(path, str(error)) from error


def _header(path: Path, content: Mapping[str, Array]) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads(str(content["header"]))
    except (KeyError, json.JSONDecodeError) as error:
        raise FileError(path, "has no radplan header: is it a machine file?") from error
    if header.get("format") != FORMAT:
        raise FileError(path, f"has format {header.get('format')!r}, expected {FORMAT!r}")
    missing = [name for name in _SCALARS if name not in header]
    if missing:
        raise FileError(path, f"header lacks {', '.join(missing)}")
    return header
