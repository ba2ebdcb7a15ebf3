"""Which linac model stands for each field of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from radplan.beams.control_points import DeliveryPlan, TreatmentField
from radplan.commissioning.calibration import calibrated, isocentric
from radplan.engines.aperture.build import opening_box
from radplan.engines.aperture.variables import FieldLayout
from radplan.errors import InputError, UnknownNameError
from radplan.io.load import load_machine
from radplan.machines import PhotonMachine, Reference

BY_ENERGY = {6: "generic_photon_6mv", 10: "generic_photon_10mv", 15: "generic_photon_15mv"}
"""Machine of a nominal energy [MV] where none is named."""

UNFLATTENED = {6: "generic_photon_6mv_fff", 10: "generic_photon_10mv_fff"}
"""The same without a flattening filter."""

_SAME_ENERGY = 0.5
"""Largest difference of nominal energies that are taken for the same [MV]."""

Named = str | Path | PhotonMachine


def machines_of(
    given: Named | Sequence[Named] | None,
    delivery: DeliveryPlan,
    calibration: Literal["machine", "isocentric"] | Reference = "machine",
) -> tuple[tuple[PhotonMachine, ...], tuple[str, ...]]:
    """Return the linac model of each field of a plan, and what is to be said about them.

    Parameters
    ----------
    given : machine, or several, optional
        One serves all fields; of several each field takes that of the nearest energy. None: the generic machine of each
        field's nominal energy.
    delivery : DeliveryPlan
        The plan.
    calibration : "machine", "isocentric" or Reference
        What a monitor unit is worth.

    Raises
    ------
    InputError
        When a machine is no photon linac, none is given or known for an energy, or several are given and a field does
        not state its energy.
    UnknownNameError
        When the calibration is a word other than these.
    """
    notes: list[str] = []
    if given is None:
        names = {one.number: _by_energy(one) for one in delivery}
        known = {name: _linac(name) for name in dict.fromkeys(names.values())}
        chosen = {number: known[name] for number, name in names.items()}
        said = ", ".join(known)
        notes.append(f"{said} by the plan's nominal energy; blind: not fitted to the linac of the plan")
    else:
        entries = [given] if isinstance(given, str | Path | PhotonMachine) else list(given)
        loaded = [_linac(entry) for entry in entries]
        chosen = {one.number: _nearest(loaded, one.energy, one.label) for one in delivery}
    made: dict[int, PhotonMachine] = {}
    for machine in chosen.values():
        if id(machine) not in made:
            made[id(machine)] = _calibrated(machine, calibration)
    for one in delivery:
        energy = chosen[one.number].energy
        if one.energy is not None and abs(energy - one.energy) > _SAME_ENERGY:
            notes.append(f"{one.label}: is of {one.energy:g} MV, {chosen[one.number].name} of {energy:g} MV")
        if one.fluence_mode != "STANDARD" and given is not None:
            notes.append(f"{one.label}: is flattening-filter free ({one.fluence_mode}); the machine's profile is used")
        notes += _small_field(one, chosen[one.number])
    return tuple(made[id(chosen[one.number])] for one in delivery), tuple(notes)


def _linac(given: Named) -> PhotonMachine:
    machine = given if isinstance(given, PhotonMachine) else load_machine(given)
    if not isinstance(machine, PhotonMachine):
        raise InputError(f"machine {machine.name!r} is no photon linac")
    return machine


def _nearest(machines: Sequence[PhotonMachine], energy: float | None, label: str) -> PhotonMachine:
    """Return the machine of the nearest energy [MV]; the one there is where the field states none."""
    if not machines:
        raise InputError("no machine is given: name one or more, or leave machine= out for the generic ones")
    if energy is None and len(machines) > 1:
        names = ", ".join(machine.name for machine in machines)
        raise InputError(f"{label}: states no energy to choose one of several machines by ({names}): name one")
    return machines[0] if energy is None else min(machines, key=lambda machine: abs(machine.energy - energy))


def _by_energy(field: TreatmentField) -> str:
    flat = field.fluence_mode == "STANDARD"
    names = BY_ENERGY if flat else UNFLATTENED
    name = None if field.energy is None else names.get(round(field.energy))
    if name is None:
        what = "no energy" if field.energy is None else f"{field.energy:g} MV" + ("" if flat else " without a filter")
        known = ", ".join(f"{e} MV" for e in names)
        raise InputError(f"{field.label}: states {what}, generic machines are known for {known}: name one (machine=)")
    return name


def _small_field(field: TreatmentField, machine: PhotonMachine) -> list[str]:
    """Say that the output of a field is not known where it opens less than what the machine was judged by."""
    x1, x2, y1, y2 = opening_box(FieldLayout.of(field, 0), 0.0)
    least = machine.smallest_field
    if min(x2 - x1, y2 - y1) >= least - 0.5:
        return []
    return [
        f"{field.label}: opens {x2 - x1:.0f} x {y2 - y1:.0f} mm; {machine.name} was judged by output factors down to "
        f"{least:g} x {least:g} mm; below that its dose may be too high (generic machines: 3 % at 20 mm, 8 % at 10 mm)"
    ]


def _calibrated(machine: PhotonMachine, calibration: Literal["machine", "isocentric"] | Reference) -> PhotonMachine:
    if isinstance(calibration, Reference):
        return calibrated(machine, calibration)
    if calibration not in ("machine", "isocentric"):
        raise UnknownNameError("calibration", str(calibration), ("machine", "isocentric"))
    return machine if calibration == "machine" else calibrated(machine, isocentric(machine))
