"""Reads the files of a tank session, whatever their formats, as the data of one beam."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from radplan.commissioning.tank import SAME_ENERGY, OutputFactor, TankData, TankScan
from radplan.errors import FileError, InputError
from radplan.io.tank.mcc import read_mcc
from radplan.io.tank.tables import read_table


def read_tank(
    paths: str | Path | Iterable[str | Path],
    energy: float | None = None,
    factors_ssd: float = 900.0,
    factors_depth: float = 100.0,
) -> TankData:
    """Return the curves and output factors of PTW ``.mcc`` and ``.csv`` files.

    Parameters
    ----------
    paths : path-like, or several
        Files, or folders of them; of a folder, what is no tank data is left out and noted.
    energy : float, optional
        Which beam [MV]; needed where the files hold several.
    factors_ssd, factors_depth : float
        Where output factors of a table by field and energy were measured [mm].

    Raises
    ------
    FileError
        When a file cannot be read.
    InputError
        When no file is given, or nothing is of that energy, or energies differ.
    """
    scans: list[TankScan] = []
    factors: list[OutputFactor] = []
    notes: list[str] = []
    for path, listed in _files([paths] if isinstance(paths, str | Path) else list(paths)):
        try:
            curves, output, said = _read(path, factors_ssd, factors_depth)
        except FileError as error:
            if listed:
                raise
            notes.append(str(error))
            continue
        scans += curves
        factors += output
        notes += said
    if energy is None:
        return TankData(tuple(scans), tuple(factors), tuple(notes))
    chosen = [scan for scan in scans if abs(scan.energy - energy) <= SAME_ENERGY]
    if not chosen:
        known = ", ".join(f"{value:g}" for value in sorted({scan.energy for scan in scans})) or "no"
        raise InputError(f"no curve is of {energy:g} MV; the files hold curves of {known} MV")
    same = [factor for factor in factors if abs(factor.energy - energy) <= SAME_ENERGY]
    return TankData(tuple(chosen), tuple(same), tuple(notes))


def _read(path: Path, ssd: float, depth: float) -> tuple[list[TankScan], list[OutputFactor], list[str]]:
    suffix = path.suffix.lower()
    if suffix == ".mcc":
        scans, notes = read_mcc(path)
        return scans, [], notes
    if suffix == ".csv":
        return *read_table(path, ssd, depth), []
    raise FileError(path, "is no tank data: expected .mcc or .csv")


def _files(paths: list[str | Path]) -> list[tuple[Path, bool]]:
    """Return the files, and whether each was named itself."""
    files: list[tuple[Path, bool]] = []
    for given in map(Path, paths):
        if given.is_dir():
            files += [(path, False) for path in sorted(given.iterdir()) if path.suffix.lower() in (".mcc", ".csv")]
        elif given.is_file():
            files.append((given, True))
        else:
            raise FileError(given, "no such file or folder")
    if not files:
        raise InputError("no tank data: give .mcc or .csv files, or a folder that holds some")
    return files
