"""A clinic's beam model: energy, spread, phase space and protons per monitor unit of every nominal energy."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from radplan.arrays import Array
from radplan.errors import FileError, InputError
from radplan.machines.emittance import Emittance

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "nominal": ("energynominal", "nominalenergy", "nominal"),
    "energy": ("ereal", "energy", "meanenergy", "energyreal"),
    "energy_sigma": ("erealsigma", "energysigma", "energyspread", "sigmae"),
    "protons_per_mu": ("protonsmu", "protonspermu", "particlespermu"),
    "sigma_x": ("sigmax",),
    "sigma_y": ("sigmay",),
    "divergence_x": ("sigmax'", "divergencex", "divx"),
    "divergence_y": ("sigmay'", "divergencey", "divy"),
    "correlation_x": ("corxx'", "correlationx", "corrx"),
    "correlation_y": ("coryy'", "correlationy", "corry"),
}
"""Columns of a beam model, and the headings that they are found by: letters and primes only, units left out."""

_POSITIVE = ("nominal", "energy", "energy_sigma", "protons_per_mu", "sigma_x", "sigma_y")


@dataclass(frozen=True, eq=False)
class BeamModel:
    """What a beam is at a plane in front of the isocentre, by nominal energy.

    Parameters
    ----------
    name : str
        What it is called.
    distance : float
        From the plane to the isocentre [mm].
    nominal, energy, energy_sigma : array of shape (n,)
        Nominal energy, increasing, true mean energy and its standard deviation [MeV].
    protons_per_mu : array of shape (n,)
        [1/MU]
    sigma_x, sigma_y : array of shape (n,)
        Standard deviation of position in the plane [mm].
    divergence_x, divergence_y : array of shape (n,)
        Standard deviation of angle [rad].
    correlation_x, correlation_y : array of shape (n,)
        Of position and angle.

    Raises
    ------
    InputError
        When columns differ in length or a value is impossible; names the column and the energy.
    """

    name: str
    distance: float
    nominal: Array
    energy: Array
    energy_sigma: Array
    protons_per_mu: Array
    sigma_x: Array
    sigma_y: Array
    divergence_x: Array
    divergence_y: Array
    correlation_x: Array
    correlation_y: Array

    def __post_init__(self) -> None:
        for column in COLUMNS:
            values = self.__dict__[column]
            if values.shape != self.nominal.shape or values.ndim != 1 or not values.size:
                raise InputError(
                    f"beam model {self.name!r}: {column} has shape {values.shape}, nominal {self.nominal.shape}"
                )
            wrong = ~np.isfinite(values) | ((values <= 0.0) if column in _POSITIVE else np.zeros(values.shape, bool))
            wrong |= (np.abs(values) > 1.0) if column.startswith("correlation") else np.zeros(values.shape, bool)
            if wrong.any():
                row = int(np.argmax(wrong))
                raise InputError(
                    f"beam model {self.name!r}: {column} of nominal energy {self.nominal[row]:g} MeV is {values[row]:g}"
                )
        if not np.all(np.diff(self.nominal) > 0.0):
            row = int(np.argmax(np.diff(self.nominal) <= 0.0))
            raise InputError(
                f"beam model {self.name!r}: nominal energies must increase, {self.nominal[row + 1]:g} MeV follows "
                f"{self.nominal[row]:g} MeV"
            )

    def at(self, nominal: float) -> dict[str, float]:
        """Return all columns at a nominal energy [MeV], linear between entries.

        Raises
        ------
        InputError
            When the energy lies outside the model.
        """
        low, high = float(self.nominal[0]), float(self.nominal[-1])
        if not low - 1e-6 <= nominal <= high + 1e-6:
            raise InputError(
                f"the energy {nominal:g} MeV lies outside beam model {self.name!r}, which has {low:g} to {high:g} MeV"
            )
        return {column: float(np.interp(nominal, self.nominal, self.__dict__[column])) for column in COLUMNS}

    def emittance(self, nominal: float, air: float = 0.0) -> Emittance:
        """Return the phase space at a nominal energy [MeV] with a scattering power of the air behind it [rad^2/mm]."""
        row = self.at(nominal)
        return Emittance(
            self.distance,
            (row["sigma_x"], row["sigma_y"]),
            (row["divergence_x"], row["divergence_y"]),
            (row["correlation_x"], row["correlation_y"]),
            air,
        )


def read_beam_model(path: str | Path, distance: float | None = None) -> BeamModel:
    """Read a beam model from a table of comma-separated values.

    Lines of headings start with #; that of the columns names energies [MeV], protons per MU, sigma x and y [mm], sigma
    x' and y' [rad] and their correlations. A line "BMODPOS 500 mm" states the plane.

    Parameters
    ----------
    path : path-like
        The file.
    distance : float, optional
        From the plane to the isocentre [mm]; what the file states otherwise.

    Raises
    ------
    FileError
        When it cannot be read, a column is missing, or a value is no number; names column and line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    headings: dict[str, int] = {}
    rows: list[tuple[int, list[str]]] = []
    for number, cells in enumerate(csv.reader(lines), start=1):
        first = cells[0].strip() if cells else ""
        if first.startswith("#") or not _is_number(first):
            headings = _columns(cells) or headings
            stated = re.search(r"BMODPOS\s+([\d.]+)\s*mm", first)
            distance = float(stated[1]) if stated and distance is None else distance
        else:
            rows.append((number, cells))
    missing = [column for column in COLUMNS if column not in headings]
    if missing:
        raise FileError(path, f"has no column for {', '.join(missing)}: is it a beam model, with a line of headings?")
    if not rows:
        raise FileError(path, "has headings, but no energies")
    if distance is None:
        raise FileError(path, "does not say where its plane lies (BMODPOS 500 mm): give the distance (plane=, --plane)")
    table = np.asarray([[_value(path, cells, headings[c], c, number) for c in COLUMNS] for number, cells in rows])
    try:
        return BeamModel(path.stem, distance, *(np.ascontiguousarray(column) for column in table.T))
    except InputError as error:
        raise FileError(path, str(error)) from None


def _columns(cells: list[str]) -> dict[str, int]:
    """Return where the columns stand in a line of headings; nothing where it is none."""
    plain = [re.sub(r"[^a-z']", "", re.sub(r"\[.*?\]", "", cell.lower())) for cell in cells]
    named = {c: k for c, names in COLUMNS.items() for k, cell in enumerate(plain) if cell in names}
    return named if len(named) > 2 else {}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _value(path: Path, cells: list[str], place: int, column: str, number: int) -> float:
    text = cells[place].strip() if place < len(cells) else ""
    if not _is_number(text):
        raise FileError(path, f"line {number}: {column} is {text!r}; expected a number")
    return float(text)
