"""Proton dose by MCsquare, a program unpacked from a wheel and never installed.

radplan writes what it needs: the patient as water of the density that the CT gives, the beam model of the machine, the
spots. Source: Souris, Lee, Sterpin, Med. Phys. 43 (2016) 1700; MCsquare in the opentps-core wheel, Apache-2.0.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from radplan.beams.beam import Beam, Beams
from radplan.engines.monte_carlo.simulated import SimulatedDose
from radplan.engines.monte_carlo.water import inside_patient, water_density
from radplan.errors import CalculationError, FileError, InputError
from radplan.geometry.grid import Grid
from radplan.machines.particle import EnergyLayer, ParticleMachine
from radplan.patient.patient import Patient

Floats = npt.NDArray[np.float64]

_FOLDER = "opentps/core/processing/doseCalculation/protons/MCsquare/"
_BINARY = "MCsquare_linux"
_NOZZLE = 400.0
"""Distance from the plane where the beam model is given to the isocentre [mm]."""

_PER_MU = 1e6
"""Protons per monitor unit of what is written: a spot's weight is 10^6 protons."""

_BATCHES = 5
"""Independent runs, from whose spread the statistical error is told."""

_WATER = 17
"""MCsquare's number of water."""

_COLUMNS = (
    "NominalEnergy MeanEnergy EnergySpread ProtonsMU Weight1 SpotSize1x Divergence1x Correlation1x SpotSize1y "
    "Divergence1y Correlation1y Weight2 SpotSize2x Divergence2x Correlation2x SpotSize2y Divergence2y Correlation2y"
)
_GRAY = 1.602176634e-16
"""Gy in one eV/g."""


def unpacked(wheel: str | Path, folder: str | Path) -> Path:
    """Return the folder of MCsquare's Linux program, out of an opentps-core wheel into a folder.

    Raises
    ------
    FileError
        When the wheel is not there, is none, or holds no MCsquare.
    """
    wheel, folder = Path(wheel), Path(folder)
    check_program(wheel)
    if wheel.is_dir():
        return _checked(wheel)
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.startswith(_FOLDER)]
            wanted = [name for name in names if name.endswith("/" + _BINARY) or "/Materials/" in name]
            archive.extractall(folder, wanted)
    except zipfile.BadZipFile as error:
        raise FileError(wheel, "is no wheel: get it with pip download --no-deps opentps-core") from error
    return _checked(folder / _FOLDER)


def check_program(wheel: str | Path) -> None:
    """Raise a `FileError` where there is neither a wheel nor a folder, before anything is calculated."""
    if not Path(wheel).exists():
        raise FileError(wheel, "no such file; get it with: pip download --no-deps opentps-core")


def _checked(folder: Path) -> Path:
    binary = folder / _BINARY
    if not (binary.is_file() and (folder / "Materials").is_dir()):
        raise FileError(folder, f"holds no {_BINARY} and Materials: is it an opentps-core wheel of version 2?")
    binary.chmod(0o755)
    return folder


def simulate_protons(
    patient: Patient,
    beams: Beams,
    machine: ParticleMachine,
    weights: npt.ArrayLike,
    grid: Grid,
    program: str | Path,
    histories: int = 1_000_000,
    seed: int = 1,
    threads: int = 1,
) -> SimulatedDose:
    """Return the Monte Carlo dose of spots in a patient.

    Parameters
    ----------
    patient : Patient
        Gives the density of water in every voxel.
    beams : Beams
        Spots.
    machine : ParticleMachine
        Energies, spectra and spot sizes.
    weights : array of shape (spots,)
        10^6 protons of each spot.
    grid : Grid
        Transport and scoring grid.
    program : path-like
        opentps-core wheel, or the folder of MCsquare unpacked from one.
    histories : int
        Protons, >= 1000.
    seed, threads : int
        Of the random numbers; threads to use.

    Raises
    ------
    InputError
        When MCsquare cannot describe the plan, or this is no Linux.
    FileError
        When the program is not there.
    CalculationError
        When it ends without a dose.
    """
    if platform.system() != "Linux":
        raise InputError(f"MCsquare is taken as a Linux program, and this is {platform.system()}")
    spots = np.asarray(weights, dtype=np.float64)
    _check(beams, machine, spots, histories)
    with tempfile.TemporaryDirectory(prefix="mcsquare") as place:
        work = Path(place)
        tool = unpacked(program, work / "program")
        density = water_density(patient, grid)
        _write_patient(work, density, grid)
        (work / "BDL.txt").write_text(beam_model_text(machine, beams))
        (work / "Plan.txt").write_text(plan_text(beams, spots, grid))
        doses, seconds = [], 0.0
        for batch in range(_BATCHES):
            (work / "config.txt").write_text(_config(max(histories // _BATCHES, 1), seed + batch, threads))
            seconds += _run(tool, work)
            doses.append(_read(work / "Outputs" / "Dose.mhd", grid))
    if not np.max(doses) > 0:
        raise CalculationError("MCsquare gave no dose on the grid: do the spots meet the patient?")
    factor = _GRAY * float(spots.sum()) * _PER_MU
    scored = np.mean(doses, axis=0) * factor, np.std(doses, axis=0, ddof=1) * factor
    dose, spread = (inside_patient(values, density) for values in scored)
    told = {"program": "MCsquare", "materials": "water of the density that the CT gives"}
    return SimulatedDose(grid, dose, spread / np.sqrt(_BATCHES), histories, seconds, told)


def _check(beams: Beams, machine: ParticleMachine, weights: Floats, histories: int) -> None:
    """Raise an InputError where MCsquare cannot describe what is asked for."""
    if machine.radiation != "protons" or beams.radiation != "protons":
        raise InputError(f"MCsquare transports protons; machine {machine.name!r} is of {machine.radiation}")
    if histories < 1000:
        raise InputError(f"histories must be >= 1000, got {histories}")
    if weights.shape != (beams.count,) or not np.all(weights >= 0) or not weights.sum() > 0:
        raise InputError(f"weights must be {beams.count} numbers >= 0, not all 0; got shape {weights.shape}")
    for beam in beams.beams:
        if beam.range_shifter is not None:
            raise InputError(
                f"the beam at gantry {beam.gantry:g} has a range shifter, which is not described to MCsquare"
            )
        if beam.collimator != 0.0 or beam.patient_position != "HFS":
            raise InputError(
                f"the beam at gantry {beam.gantry:g} has collimator {beam.collimator:g} and position "
                f"{beam.patient_position}; MCsquare is given plans at collimator 0 of patients lying HFS"
            )


def spot_model(layer: EnergyLayer, sad: float) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return size [mm], divergence [rad] and correlation of a beam along x and y in the plane of the nozzle.

    From the variance a + b h + c h^2 at h behind the isocentre: that of an `Emittance`, or a parabola through the
    widths of an `InitialFocus`.
    """
    if layer.emittance is not None:
        moments = layer.emittance.moments
    else:
        near = layer.focus.distance[0] - sad
        parabola = np.polynomial.polynomial.polyfit(near, layer.focus.sigma[0] ** 2, 2)
        moments = np.stack([parabola, parabola])
    rows = []
    for a, b, c in moments:
        angle = max(float(c), 1e-12)
        size = max(float(a - b * _NOZZLE + angle * _NOZZLE**2), 1e-6)
        mixed = 0.5 * float(b) - angle * _NOZZLE
        rows.append((size**0.5, angle**0.5, float(np.clip(mixed / (size * angle) ** 0.5, -0.99, 0.99))))
    return rows[0], rows[1]


def beam_model_text(machine: ParticleMachine, beams: Beams) -> str:
    """Return MCsquare's beam model of the energies that beams use; the correlation is MCsquare's, against the way."""
    used = np.unique(np.concatenate([beam.energies for beam in beams.beams if beam.energies is not None]))
    known = {layer.energy: layer for layer in machine.layers}
    layers = [known[float(energy)] for energy in used]
    if len(layers) == 1:  # Why: the program interpolates, and needs two; the second is never shot.
        only = layers[0]
        layers.append(replace(only, energy=only.energy + 1.0, mean_energy=(only.mean_energy or only.energy) + 1.0))
    rows = []
    for layer in layers:
        mean = layer.mean_energy or layer.energy
        (x, dx, rx), (y, dy, ry) = spot_model(layer, machine.sad)
        numbers = [layer.energy, mean, 100.0 * layer.energy_sigma / mean, _PER_MU]
        numbers += [1.0, x, dx, -rx, y, dy, -ry, 0.0, x, dx, -rx, y, dy, -ry]
        rows.append(" ".join(f"{number:.6g}" for number in numbers))
    head = ["--UPenn beam model (double gaussian)--", "", "Nozzle exit to Isocenter distance", f"{_NOZZLE}", ""]
    x, y = machine.scan_distances
    head += ["SMX to Isocenter distance", f"{x}", "", "SMY to Isocenter distance", f"{y}", ""]
    head += ["Beam parameters", f"{len(rows)} energies", "", _COLUMNS]
    return "\n".join([*head, *rows, ""])


def plan_text(beams: Beams, weights: Floats, grid: Grid) -> str:
    """Return MCsquare's plan of spots, one monitor unit being 10^6 protons."""
    lines = ["#TREATMENT-PLAN-DESCRIPTION", "#PlanName", "Plan", "#NumberOfFractions", "1", "##FractionID", "1"]
    lines += ["##NumberOfFields", str(len(beams.beams))]
    for number in range(len(beams.beams)):
        lines += ["###FieldsID", str(number + 1)]
    lines += ["#TotalMetersetWeightOfAllFields", f"{weights.sum():.8g}"]
    first, final = 0, 0.0
    for number, beam in enumerate(beams.beams):
        own = weights[first : first + beam.count]
        first += beam.count
        final += float(own.sum())
        lines += ["", "#FIELD-DESCRIPTION", "###FieldID", str(number + 1)]
        lines += ["###FinalCumulativeMeterSetWeight", f"{final:.8g}", "###GantryAngle", f"{beam.gantry:.6g}"]
        lines += ["###PatientSupportAngle", f"{beam.couch:.6g}", "###IsocenterPosition"]
        lines.append("\t ".join(f"{value:.6f}" for value in _isocenter(beam, grid)))
        lines += _spot_lines(beam, own)
    return "\n".join([*lines, ""])


def _spot_lines(beam: Beam, weights: Floats) -> list[str]:
    assert beam.energies is not None
    energies = [
        float(energy) for energy in np.unique(beam.energies)[::-1] if weights[beam.energies == energy].sum() > 0
    ]
    lines = ["###NumberOfControlPoints", str(len(energies)), "", "#SPOTS-DESCRIPTION"]
    given = 0.0
    for number, energy in enumerate(energies):
        chosen = np.flatnonzero((beam.energies == energy) & (weights > 0))
        given += float(weights[chosen].sum())
        lines += ["####ControlPointIndex", str(number + 1), "####SpotTunnedID", "1"]
        lines += ["####CumulativeMetersetWeight", f"{given:.8g}", "####Energy (MeV)", f"{energy:.6f}"]
        lines += ["####NbOfScannedSpots", str(chosen.size), "####X Y Weight"]
        lines += [f"{beam.bixels[i, 0]:.6f} {beam.bixels[i, 1]:.6f} {weights[i]:.8g}" for i in chosen]
    return lines


def _isocenter(beam: Beam, grid: Grid) -> Floats:
    """Return the isocentre from the corner of the image, y running the other way [mm]."""
    low, high = (np.asarray(corner) for corner in grid.bounds)
    from_corner = beam.isocenter - low
    from_corner[1] = high[1] - beam.isocenter[1]
    return np.asarray(from_corner, dtype=np.float64)


def _write_patient(work: Path, density: Floats, grid: Grid) -> None:
    """Write the image, and tables by which its numbers are thousandths of the density of water, less 1000."""
    numbers = 1000.0 * (density - 1.0)
    low, high = grid.bounds
    # Why: the program counts x and y from the far side.
    np.ascontiguousarray(numbers[:, ::-1, ::-1], dtype="<f4").tofile(work / "CT.raw")
    size, spacing = grid.shape[::-1], grid.spacing
    offset = (low[0], -high[1], low[2])
    lines = ["ObjectType = Image", "NDims = 3", "BinaryData = True", "BinaryDataByteOrderMSB = False"]
    lines += ["CompressedData = False", f"Offset = {_blank(offset)}", f"ElementSpacing = {_blank(spacing)}"]
    lines += [f"DimSize = {size[0]} {size[1]} {size[2]}", "ElementType = MET_FLOAT", "ElementDataFile = CT.raw", ""]
    (work / "CT.mhd").write_text("\n".join(lines))
    (work / "density.txt").write_text("# HU density [g/cm3]\n-1000 0.001\n-999 0.001\n0 1.0\n4000 5.0\n")
    (work / "material.txt").write_text(f"# HU material\n-1050 {_WATER}\n")


def _blank(values: Sequence[float]) -> str:
    return " ".join(f"{value:.6f}" for value in values)


def _config(histories: int, seed: int, threads: int) -> str:
    rows = {
        "Num_Threads": threads,
        "RNG_Seed": seed,
        "Num_Primaries": histories,
        "CT_File": "CT.mhd",
        "HU_Density_Conversion_File": "density.txt",
        "HU_Material_Conversion_File": "material.txt",
        "BDL_Machine_Parameter_File": "BDL.txt",
        "BDL_Plan_File": "Plan.txt",
        "Compute_stat_uncertainty": "True",
        "Output_Directory": "Outputs",
        "Dose_MHD_Output": "True",
    }
    return "\n".join([*(f"{name} {value}" for name, value in rows.items()), ""])


def _run(tool: Path, work: Path) -> float:
    """Run the program; returns its processor time [s]."""
    # Why: a dose that an earlier run left must not be taken for this one's.
    shutil.rmtree(work / "Outputs", ignore_errors=True)
    (work / "Outputs").mkdir()
    environment = {**os.environ, "MCsquare_Materials_Dir": str(tool / "Materials")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    answer = subprocess.run(
        [str(tool / _BINARY), "config.txt"], cwd=work, env=environment, capture_output=True, text=True, check=False
    )
    seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    if answer.returncode != 0 or not (work / "Outputs" / "Dose.mhd").is_file():
        said = " ".join((answer.stdout + answer.stderr).split()[-40:])
        raise CalculationError(f"MCsquare ended without a dose (exit code {answer.returncode}): {said}")
    return seconds


def _read(path: Path, grid: Grid) -> Floats:
    values = np.fromfile(path.with_suffix(".raw"), dtype="<f4")
    if values.size != grid.size:
        raise CalculationError(f"MCsquare wrote {values.size} voxels of dose, expected {grid.size}")
    return np.asarray(values.reshape(grid.shape)[:, ::-1, ::-1], dtype=np.float64)
