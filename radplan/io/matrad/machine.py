"""matRad's base data: photon machines with three-component kernels; other radiations go to their own reader."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from radplan.arrays import Array
from radplan.errors import FileError, InputError
from radplan.io.matrad.particle_machine import PARTICLES, particle_machine
from radplan.io.matrad.struct import load_variables
from radplan.machines import ParticleMachine, PhotonMachine, SSDTableKernel

PIXEL = 0.5
"""Pixel side of matRad's photon kernels and convolutions [mm]."""


def read_machine(path: str | Path, *, primary_fluence: bool = False) -> PhotonMachine | ParticleMachine:
    r"""Read a machine of photons (kernel version 1 or 2) or particles from a matRad file.

    How particles are read stands at `radplan.io.matrad.particle_machine.particle_machine`.

    A photon machine reproduces matRad's dose for w = 1 per bixel: L is the straight distance from the source, there
    are no monitor units (`reference` is None), and each bixel sits half a pixel, -0.25 mm in beam's-eye-view x and y,
    off its nominal position, because matRad samples a bixel of n pixels at -n/2 ... n/2 - 1 pixels. (That holds for
    widths of an even number of 0.5 mm pixels; others sit up to -0.5 mm off in matRad.)

    Version 1 files carry the area of a 0.5 mm pixel inside the kernels, version 2 files are per mm^2; both give the
    same machine. matRad's default ignores the file's off-axis fluence, so the profile is 1 unless asked for; the
    table travels as ``provenance["primary_fluence"]`` in either case.

    Parameters
    ----------
    path : path-like
        The .mat file.
    primary_fluence : bool
        Photons: use the file's off-axis fluence, as matRad does for custom fluence.

    Raises
    ------
    FileError
        When the file is missing, damaged, no matRad machine, or one for another radiation.

    Source: Bortfeld, Schlegel, Rhein, Med. Phys. 20 (1993) 311; matRad's ``basedata``.

    >>> read_machine("nowhere.mat")
    Traceback (most recent call last):
    ...
    radplan.errors.FileError: nowhere.mat: no such file
    """
    path = Path(path)
    machine = _load(path)
    try:
        meta, data = machine["meta"], machine["data"]
        radiation = str(meta["radiationMode"])
        if radiation in PARTICLES:
            return particle_machine(path, meta, machine["data"])
        if radiation != "photons":
            expected = ", ".join(("photons", *PARTICLES))
            raise FileError(path, f"is a machine for {radiation}; this reader takes {expected}")
        return _photon_machine(path, meta, data, _version(path, machine), primary_fluence)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise FileError(path, f"is no complete matRad machine: {error!r} is missing or malformed") from error
    except (InputError, ValueError, OverflowError) as error:
        raise FileError(path, f"is no valid matRad machine: {error}") from error


def _load(path: Path) -> Mapping[str, Any]:
    machine = load_variables(path, ("machine",), simplify_cells=True).get("machine")
    if not isinstance(machine, Mapping):
        raise FileError(path, "has no struct 'machine': is it a matRad machine?")
    return machine


def _version(path: Path, machine: Mapping[str, Any]) -> int:
    version = int(machine.get("version", 1))
    if version not in (1, 2):
        raise FileError(path, f"has kernel version {version}; versions 1 and 2 are known")
    return version


def _photon_machine(
    path: Path, meta: Mapping[str, Any], data: Mapping[str, Any], version: int, primary_fluence: bool
) -> PhotonMachine:
    stored = data["kernel"]
    kernels = [stored] if isinstance(stored, Mapping) else list(stored)
    buildup = np.atleast_1d(np.asarray(data["betas"], dtype=np.float64))
    values = np.asarray([[k[f"kernel{i + 1}"] for i in range(buildup.size)] for k in kernels], dtype=np.float64)
    kernel = SSDTableKernel(
        ssd=np.asarray([float(k["SSD"]) for k in kernels]),
        attenuation=float(data["m"]),
        buildup=buildup,
        radius=_increasing(path, np.asarray(data["kernelPos"], dtype=np.float64)),
        values=values if version == 1 else values * PIXEL**2,
        pitch=PIXEL,
    )
    fluence = np.asarray(data["primaryFluence"], dtype=np.float64).reshape(-1, 2)
    radius = _increasing(path, fluence[:, 0])
    name = str(meta["machine"] if "machine" in meta else meta["name"])
    return PhotonMachine(
        name=f"matrad_photons_{name}",
        energy=float(data["energy"]),
        sad=float(meta["SAD"]),
        source_fwhm=float(data["penumbraFWHMatIso"]),
        profile_radius=radius,
        profile=fluence[:, 1] if primary_fluence else np.ones(radius.size),
        kernel=kernel,
        distance="ray",
        reference=None,
        lateral_cutoff=50.0,
        provenance={
            "file": path.name,
            "format": f"matRad photons, kernel version {version}",
            "description": str(meta.get("description", "")),
            "created": f"{meta.get('created_on', '')} by {meta.get('created_by', '')}",
            "primary_fluence": fluence.tolist(),
        },
        bixel_shift=(-PIXEL / 2, -PIXEL / 2),
    )


def _increasing(path: Path, axis: Array) -> Array:
    if axis.ndim != 1 or axis.size < 2 or not np.all(np.diff(axis) > 0):
        raise FileError(path, "has radii that do not increase")
    return axis
