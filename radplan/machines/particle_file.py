"""Particle machines on disk: the ragged tables of all energies end to end, with a JSON header."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from radplan.arrays import Array
from radplan.errors import FileError, InputError
from radplan.machines.archive import read_archive, require, write_archive
from radplan.machines.emittance import Emittance
from radplan.machines.particle import EnergyLayer, InitialFocus, ParticleMachine

PARTICLE_FORMAT = "radplan particle machine 1"
_MACHINE_SCALARS = ("name", "radiation", "sad", "nozzle_distance", "fit_air_offset", "provenance")
_MACHINE_ARRAYS = ("spot_width", "spot_fwhm", "tissue_alpha_x", "tissue_beta_x")
_LAYER_SCALARS = (
    "energy",
    "peak",
    "range80",
    "offset",
    "mean_energy",
    "energy_sigma",
    "particles_per_mu",
    "min_mu",
    "max_mu",
)
_TABLES = (
    "let", "let_all", "sigma", "sigma1", "sigma2", "weight", "sigma_x", "sigma_y",
    "primary_dose", "primary_let", "primary_fluence", "proton_dose", "proton_fluence",
)  # fmt: skip
_BIOLOGY = ("alpha", "beta")
_FOCUS = ("distance", "sigma", "fwhm")


def write_particle_machine(machine: ParticleMachine, path: str | Path) -> None:
    """Write a machine to a file that `read_particle_machine` takes; tables are kept in single precision.

    Raises
    ------
    InputError
        When some energies have a table that others lack, or another shape of focus.
    """
    header = {name: machine.__dict__[name] for name in _MACHINE_SCALARS}
    header["provenance"] = dict(machine.provenance)
    header["cutoff_rule"] = machine.cutoff_rule
    if machine.virtual_sad is not None:
        header["virtual_sad"] = list(machine.virtual_sad)
    header["format"] = PARTICLE_FORMAT
    arrays = {name: machine.__dict__[name] for name in _MACHINE_ARRAYS}
    layers = machine.layers
    arrays["layers"] = np.asarray([[layer.__dict__[name] for name in _LAYER_SCALARS] for layer in layers])
    arrays["count"] = np.asarray([layer.depth.size for layer in layers], dtype=np.int64)
    for name in ("depth", "dose", *_TABLES, *_BIOLOGY):
        rows = [layer.__dict__[name] for layer in layers]
        present = [row for row in rows if row is not None]
        if present and len(present) < len(rows):
            raise InputError(f"machine {machine.name!r} has {name} for only {len(present)} of {len(rows)} energies")
        if present:
            arrays[name] = np.concatenate(present, axis=-1).astype(np.float32)
    for name in _FOCUS:
        rows = [layer.focus.__dict__[name] for layer in layers]
        if len({row.shape for row in rows}) > 1:
            raise InputError(f"machine {machine.name!r} has foci of other shapes at other energies; write one shape")
        arrays[f"focus_{name}"] = np.stack(rows)
    phases = [layer.emittance for layer in layers if layer.emittance is not None]
    if phases and len(phases) < len(layers):
        raise InputError(f"machine {machine.name!r} has an emittance for only {len(phases)} of {len(layers)} energies")
    if phases:
        arrays["emittance"] = np.asarray(
            [[e.distance, *e.sigma, *e.divergence, *e.correlation, e.air] for e in phases], dtype=np.float64
        )
    write_archive(path, header, arrays)


def read_particle_machine(path: str | Path) -> ParticleMachine:
    """Read a machine that `write_particle_machine` wrote.

    Raises
    ------
    FileError
        When the file is missing, damaged, of another kind, or holds impossible values.
    """
    return particle_machine_from(Path(path), *read_archive(path))


def particle_machine_from(path: Path, header: Mapping[str, Any], content: Mapping[str, Array]) -> ParticleMachine:
    """Return the machine of an archive that was read already; `path` is for messages."""
    needed = (*_MACHINE_ARRAYS, "layers", "count", "depth", "dose", *(f"focus_{name}" for name in _FOCUS))
    require(path, header, PARTICLE_FORMAT, _MACHINE_SCALARS, content, needed)
    try:
        ends = np.cumsum(content["count"])
        layers = tuple(
            _layer(content, index, slice(int(ends[index] - content["count"][index]), int(ends[index])))
            for index in range(ends.size)
        )
        entries: dict[str, Any] = {name: header[name] for name in _MACHINE_SCALARS}
        entries |= {name: np.asarray(content[name], dtype=np.float64) for name in _MACHINE_ARRAYS}
        entries["virtual_sad"] = tuple(header["virtual_sad"]) if "virtual_sad" in header else None
        return ParticleMachine(layers=layers, cutoff_rule=header.get("cutoff_rule", "exact"), **entries)
    except (InputError, AttributeError, LookupError, OverflowError, TypeError, ValueError) as error:
        raise FileError(path, f"holds no valid particle machine: {error}") from error


def _layer(content: Mapping[str, Array], index: int, part: slice) -> EnergyLayer:
    scalars = dict(zip(_LAYER_SCALARS, (float(value) for value in content["layers"][index]), strict=True))
    tables: dict[str, Any] = {
        name: np.ascontiguousarray(content[name][..., part], dtype=np.float64)
        for name in ("depth", "dose", *_TABLES, *_BIOLOGY)
        if name in content
    }
    focus = InitialFocus(*(np.asarray(content[f"focus_{name}"][index], dtype=np.float64) for name in _FOCUS))
    scalars["max_mu"] = scalars["max_mu"] if np.isfinite(scalars["max_mu"]) else inf
    emittance = None
    if "emittance" in content:
        distance, *pairs, air = (float(value) for value in content["emittance"][index])
        emittance = Emittance(distance, (pairs[0], pairs[1]), (pairs[2], pairs[3]), (pairs[4], pairs[5]), air)
    return EnergyLayer(focus=focus, emittance=emittance, **scalars, **tables)
