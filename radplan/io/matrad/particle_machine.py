"""matRad's base data: particle machines of protons, helium, carbon and very high energy electrons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from radplan.arrays import Array
from radplan.errors import FileError
from radplan.machines.particle import RADIATIONS, EnergyLayer, InitialFocus, ParticleMachine, distal_depth

PARTICLES = RADIATIONS
"""matRad's radiation modes that `particle_machine` reads; radplan uses the same words."""

_FWHM = float(np.sqrt(8 * np.log(2)))
_BAMS_TO_ISO = 1000.0
"""What matRad takes where a file does not say [mm]."""


def particle_machine(path: Path, meta: Mapping[str, Any], data: Any) -> ParticleMachine:
    """Return the machine of a matRad file's `meta` and `data`, table by table as they stand there.

    Tables are kept at their own depths. Every file's Gaussian models are kept side by side: matRad's engine takes the
    single Gaussian where there is one ("fast") or the double one ("auto"). A file without a virtual air gap has 0, one
    without a nozzle distance 1000 mm, as in matRad's engine; without MU there are 10^6 particles per MU and no limits.
    The lateral cut-off is found as matRad finds it. The depth of the maximum is the file's; that of the distal 80 % is
    read off its curve.

    Parameters
    ----------
    path : Path
        The file, for messages and provenance.
    meta : mapping
        Its `machine.meta`.
    data : sequence of mappings, or mapping of sequences
        Its `machine.data`, one entry for each energy.

    Raises
    ------
    FileError
        When the lateral model is one that radplan does not know.
    KeyError, InputError
        When fields are missing or hold impossible values; `read_machine` turns both into a FileError.
    """
    entries = _entries(data)
    kind = str(meta.get("dataType", ""))
    if kind == "multipleGauss":
        raise FileError(path, "has lateral kernels of many Gaussians; single, double and XY Gaussians can be read")
    layers = sorted((_layer(entry) for entry in entries), key=lambda layer: layer.energy)
    alpha_x, beta_x = _tissues(path, entries)
    width, fwhm = _spot_lookup(meta)
    radiation = str(meta["radiationMode"])
    name = str(meta["machine"] if "machine" in meta else meta["name"])
    return ParticleMachine(
        name=f"matrad_{radiation}_{name}",
        radiation=radiation,
        sad=float(meta["SAD"]),
        nozzle_distance=float(meta.get("BAMStoIsoDist", _BAMS_TO_ISO)),
        layers=tuple(layers),
        fit_air_offset=float(meta.get("fitAirOffset", 0.0)),
        spot_width=width,
        spot_fwhm=fwhm,
        tissue_alpha_x=alpha_x,
        tissue_beta_x=beta_x,
        provenance={
            "file": path.name,
            "format": f"matRad {radiation}, {kind}",
            "description": str(meta.get("description", "")),
            "created": f"{meta.get('created_on', '')} by {meta.get('created_by', '')}",
        },
        cutoff_rule="matrad",
    )


def _entries(data: Any) -> list[Mapping[str, Any]]:
    """Return one mapping for each energy, also where the file holds one struct of lists."""
    if not isinstance(data, Mapping):
        return list(data)
    if np.ndim(data["energy"]) == 0:
        return [data]
    count = len(data["energy"])
    unequal = [name for name, column in data.items() if not _has_length(column, count)]
    if unequal:
        raise KeyError(f"data.{unequal[0]} for each of {count} energies")
    return [{name: column[index] for name, column in data.items()} for index in range(count)]


def _has_length(column: Any, count: int) -> bool:
    return isinstance(column, Sequence | np.ndarray) and len(column) == count


def _layer(entry: Mapping[str, Any]) -> EnergyLayer:
    depth, dose = _row(entry["depths"]), _row(entry["Z"])
    spectrum = entry.get("energySpectrum", {})
    cross = {} if "sigmaXY" not in entry else dict(zip(("sigma_x", "sigma_y"), _rows(entry["sigmaXY"]), strict=True))
    tables = {name: _row(entry[name]) for name in ("sigma", "sigma1", "sigma2", "weight") if _filled(entry, name)}
    biology = {name: _rows(entry[name]) for name in ("alpha", "beta") if _filled(entry, name)}
    return EnergyLayer(
        energy=float(entry["energy"]),
        depth=depth,
        dose=dose,
        peak=float(entry["peakPos"]) if _filled(entry, "peakPos") else float(depth[np.argmax(dose)]),
        range80=distal_depth(depth, dose),
        focus=_focus(entry["initFocus"]),
        offset=float(entry.get("offset", 0.0)),
        let=_row(entry["LET"]) if _filled(entry, "LET") else None,
        mean_energy=float(spectrum.get("mean", 0.0)),
        energy_sigma=_energy_sigma(spectrum),
        particles_per_mu=float(entry.get("numParticlesPerMU", 1e6)),
        min_mu=float(entry.get("minMU", 0.0)),
        max_mu=float(entry.get("maxMU", inf)),
        **tables,
        **cross,
        **biology,
    )


def _energy_sigma(spectrum: Mapping[str, Any]) -> float:
    """Return the width of the spectrum [MeV]; matRad holds it in percent of the mean."""
    return float(spectrum.get("sigma", 0.0)) / 100 * float(spectrum.get("mean", 0.0))


def _focus(focus: Mapping[str, Any]) -> InitialFocus:
    distance = np.atleast_2d(np.asarray(focus["dist"], dtype=np.float64))
    sigma = np.atleast_2d(np.asarray(focus["sigma"], dtype=np.float64))
    return InitialFocus(distance, sigma, np.atleast_1d(np.asarray(focus["SisFWHMAtIso"], dtype=np.float64)))


def _tissues(path: Path, entries: Sequence[Mapping[str, Any]]) -> tuple[Array, Array]:
    if not _filled(entries[0], "alpha"):
        return np.zeros(0), np.zeros(0)
    alpha_x, beta_x = (np.atleast_1d(np.asarray(entries[0][name], dtype=np.float64)) for name in ("alphaX", "betaX"))
    for entry in entries:
        if not (np.array_equal(alpha_x, _row(entry["alphaX"])) and np.array_equal(beta_x, _row(entry["betaX"]))):
            raise FileError(path, "tabulates alpha and beta for other tissues at other energies; expected the same")
    return alpha_x, beta_x


def _spot_lookup(meta: Mapping[str, Any]) -> tuple[Array, Array]:
    """Return spot distances and the least focus width for them, from a table of two rows; matRad renamed it."""
    for name in ("LUTspotSize", "LUT_bxWidthminFWHM"):
        if name in meta:
            width, fwhm = np.asarray(meta[name], dtype=np.float64).reshape(2, -1)
            return width, fwhm
    return np.zeros(1), np.zeros(1)


def _filled(entry: Mapping[str, Any], name: str) -> bool:
    return name in entry and np.size(entry[name]) > 0


def _row(table: Any) -> Array:
    return np.atleast_1d(np.asarray(table, dtype=np.float64))


def _rows(table: Any) -> Array:
    """Return a (depths, columns) table as (columns, depths)."""
    return np.ascontiguousarray(np.asarray(table, dtype=np.float64).T)
