"""A particle machine adapted to a plan: other energies than its tables stand at, and other distances of its magnets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

import numpy as np

from radplan.arrays import Array
from radplan.errors import InputError
from radplan.machines.emittance import Emittance
from radplan.machines.particle import EnergyLayer, InitialFocus, ParticleMachine

_SAME = 1e-4
"""Energies that differ by less are one [MeV/u]."""


def at_energies(machine: ParticleMachine, energies: Iterable[float]) -> ParticleMachine:
    """Return a machine that offers just these energies [MeV/u], by interpolation where its tables have others.

    Raises
    ------
    InputError
        When an energy lies outside the machine's.

    >>> from radplan.machines import library_machine
    >>> shipped = library_machine("generic_proton")
    >>> between = at_energies(shipped, [150.0])
    >>> low, high = (layer.range80 for layer in shipped.layers if 149 < layer.energy < 152)
    >>> bool(low < between.entry(0).range80 < high)
    True
    """
    wanted = np.unique(np.round(np.asarray(list(energies), dtype=np.float64), 6))
    low, high = float(machine.energies[0]), float(machine.energies[-1])
    beyond = (wanted < low - _SAME) | (wanted > high + _SAME)
    if beyond.any():
        raise InputError(
            f"the energy {wanted[beyond][0]:g} MeV/u lies outside machine {machine.name!r}, which has {low:g} to "
            f"{high:g} MeV/u"
        )
    return replace(machine, layers=tuple(_layer(machine, float(energy)) for energy in wanted))


def scanned_from(machine: ParticleMachine, distances: tuple[float, float]) -> ParticleMachine:
    """Return a machine whose spots are scanned from points that far from the isocentre along x and y [mm].

    Everything at the isocentre stays as it is; the source lies at the geometric mean of the two.

    >>> from radplan.machines import library_machine
    >>> near = scanned_from(library_machine("generic_proton"), (2000.0, 2500.0))
    >>> round(near.sad, 1), near.scan_distances
    (2236.1, (2000.0, 2500.0))
    """
    sad = float(np.sqrt(distances[0] * distances[1]))
    layers = tuple(
        replace(layer, focus=replace(layer.focus, distance=layer.focus.distance + (sad - machine.sad)))
        for layer in machine.layers
    )
    return replace(machine, sad=sad, virtual_sad=distances, layers=layers)


def of_primaries(machine: ParticleMachine) -> ParticleMachine:
    """Return a machine of the protons that have no nuclear reaction: their dose, and as LET their LETd.

    Raises
    ------
    InputError
        When the machine does not tabulate primaries.

    >>> from radplan.machines import library_machine
    >>> shipped = library_machine("generic_proton")
    >>> bool(of_primaries(shipped).entry(60).dose[80] < shipped.entry(60).dose[80])
    True
    """
    layers = []
    for layer in machine.layers:
        if layer.primary_dose is None or layer.primary_let is None:
            raise InputError(f"machine {machine.name!r} does not tabulate primaries at {layer.energy:g} MeV/u")
        layers.append(replace(layer, dose=layer.primary_dose, let=layer.primary_let))
    return replace(machine, layers=tuple(layers))


def _layer(machine: ParticleMachine, energy: float) -> EnergyLayer:
    after = int(np.clip(np.searchsorted(machine.energies, energy), 1, machine.energies.size - 1))
    for index in (after - 1, after):
        if abs(machine.energies[index] - energy) < _SAME:
            return replace(machine.entry(index), energy=energy)
    first, second = machine.entry(after - 1), machine.entry(after)
    part = (energy - first.energy) / (second.energy - first.energy)
    nearest = first if part < 0.5 else second
    # Why: range is nearly a power of the energy, so that its logarithm is straight between neighbours.
    power = (np.log(energy) - np.log(first.energy)) / (np.log(second.energy) - np.log(first.energy))
    range80 = float(np.exp((1 - power) * np.log(first.range80) + power * np.log(second.range80)))
    depth = nearest.depth * range80 / nearest.range80
    changed: dict[str, Any] = {"energy": energy, "range80": range80, "depth": depth}
    changed["peak"] = range80 * _mix(first.peak / first.range80, second.peak / second.range80, part)
    for entry in fields(EnergyLayer):
        low, high = first.__dict__[entry.name], second.__dict__[entry.name]
        if entry.name in changed:
            continue
        if isinstance(low, np.ndarray):
            changed[entry.name] = _mix(_scaled(first, low, depth, range80), _scaled(second, high, depth, range80), part)
        elif isinstance(low, float):
            changed[entry.name] = low if low == high else _mix(low, high, part)
    changed["focus"] = _focus(first.focus, second.focus, part)
    if first.emittance is not None and second.emittance is not None:
        changed["emittance"] = _emittance(first.emittance, second.emittance, part)
    return replace(nearest, **changed)


def _mix(low: Any, high: Any, part: float) -> Any:
    return (1 - part) * low + part * high


def _scaled(layer: EnergyLayer, table: Array, depth: Array, range80: float) -> Array:
    """Return a table at depths of a beam of another range."""
    at = depth * layer.range80 / range80
    return np.stack([np.interp(at, layer.depth, row) for row in np.atleast_2d(table)]).reshape(*table.shape[:-1], -1)


def _focus(low: InitialFocus, high: InitialFocus, part: float) -> InitialFocus:
    if low.distance.shape != high.distance.shape:
        return low if part < 0.5 else high
    return InitialFocus(
        *(_mix(low.__dict__[name], high.__dict__[name], part) for name in ("distance", "sigma", "fwhm"))
    )


def _emittance(low: Emittance, high: Emittance, part: float) -> Emittance:
    pairs = [
        tuple(_mix(a, b, part) for a, b in zip(low.__dict__[name], high.__dict__[name], strict=True))
        for name in ("sigma", "divergence", "correlation")
    ]
    return Emittance(
        _mix(low.distance, high.distance, part),
        (pairs[0][0], pairs[0][1]),
        (pairs[1][0], pairs[1][1]),
        (pairs[2][0], pairs[2][1]),
        _mix(low.air, high.air, part),
    )
