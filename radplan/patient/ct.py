"""Computed tomography: Hounsfield units on a grid, and the tables that turn them into density relative to water."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from radplan.errors import FileError, InputError, UnknownNameError
from radplan.geometry.grid import Grid

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class CT:
    """A CT: Hounsfield units on a grid, in DICOM patient coordinates.

    Parameters
    ----------
    grid : Grid
        Where the voxels lie.
    hu : array of shape (nz, ny, nx)
        Hounsfield units [HU]; kept as float32 and read-only.

    Raises
    ------
    InputError
        When the shape differs from the grid's, or a value is NaN or infinite.

    >>> ct = CT(Grid((1, 1, 2), (3.0, 3.0, 3.0), (0.0, 0.0, 0.0)), np.asarray([[[0, -1000]]]))
    >>> ct.hu.dtype.name, float(ct.hu[0, 0, 1])
    ('float32', -1000.0)
    """

    grid: Grid
    hu: npt.NDArray[np.float32]

    def __repr__(self) -> str:
        size = " x ".join(f"{step:g}" for step in self.grid.spacing)
        return f"CT({' x '.join(map(str, self.grid.shape))} voxels of {size} mm)"

    def __post_init__(self) -> None:
        try:
            hu = np.array(self.hu, dtype=np.float32, order="C")
        except (TypeError, ValueError) as error:
            raise InputError(f"CT values must be numbers ({error})") from None
        if hu.shape != self.grid.shape:
            raise InputError(
                f"CT values of shape {hu.shape} do not fit the grid's {self.grid.shape}; expected (nz, ny, nx)"
            )
        if not np.isfinite(hu).all():
            bad = np.flatnonzero(~np.isfinite(hu))
            z, y, x = (int(i) for i in np.unravel_index(bad[0], hu.shape))
            raise InputError(
                f"the CT holds {bad.size} values that are NaN or infinite, the first at voxel [z, y, x] = "
                f"[{z}, {y}, {x}]; every voxel needs a Hounsfield unit: repair the images before planning"
            )
        hu.flags.writeable = False
        object.__setattr__(self, "hu", hu)


@dataclass(frozen=True)
class HUTable:
    """A piecewise-linear table from Hounsfield units to electron density relative to water.

    Photon engines use the density as relative electron density. Between the points the density is interpolated
    linearly; it never falls with HU.

    Parameters
    ----------
    name : str
        What the table is called in messages and plan files.
    hu : sequence of float, (n,)
        Hounsfield units [HU], strictly rising, n >= 2.
    density : sequence of float, (n,)
        Electron density relative to water at each of them [1], >= 0, not falling.
    clip : bool
        Whether HU beyond the ends take the density of the end, which is announced. Without it they raise.

    Raises
    ------
    InputError
        When the points are not such a table, or (from `density`) when a value lies outside it and `clip` is off.

    >>> table = HUTable("two points", (-1000.0, 0.0), (0.0, 1.0))
    >>> table.relative_density([-500.0, 0.0]).tolist()
    [0.5, 1.0]
    """

    name: str
    hu: tuple[float, ...]
    density: tuple[float, ...]
    clip: bool = True

    def __post_init__(self) -> None:
        hu, density = tuple(float(v) for v in self.hu), tuple(float(v) for v in self.density)
        if len(hu) != len(density) or len(hu) < 2:
            raise InputError(
                f"HU table {self.name!r} needs two or more points with one density each, "
                f"got {len(hu)} HU and {len(density)} densities"
            )
        if not (np.isfinite(hu).all() and np.isfinite(density).all()):
            raise InputError(f"HU table {self.name!r} holds a value that is NaN or infinite")
        if not (np.diff(hu) > 0).all():
            raise InputError(f"HU table {self.name!r}: HU must rise from line to line, got {hu}")
        if not (np.diff(density) >= 0).all() or density[0] < 0:
            raise InputError(
                f"HU table {self.name!r}: densities must be >= 0 and must not fall as HU rises, got {density}"
            )
        object.__setattr__(self, "hu", hu)
        object.__setattr__(self, "density", density)

    def relative_density(self, hu: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Return the density relative to water [1] of Hounsfield units of any shape [HU]."""
        values = np.asarray(hu, dtype=np.float64)
        bad = self.first_outside(values)
        if bad is not None:
            where = tuple(int(i) for i in np.unravel_index(bad, values.shape))
            raise InputError(self.outside_message(float(values.flat[bad]), f"index {where}"))
        return np.asarray(np.interp(values, self.hu, self.density), dtype=np.float64)

    def first_outside(self, hu: npt.ArrayLike) -> int | None:
        """Return the flat index of the first value that this table cannot convert, or None."""
        values = np.asarray(hu).reshape(-1)
        outside = np.isnan(values) if self.clip else ~((values >= self.hu[0]) & (values <= self.hu[-1]))
        return int(np.argmax(outside)) if outside.any() else None

    def outside_message(self, value: float, where: str) -> str:
        """Return the text of the error for `value` [HU] found at `where`."""
        return (
            f"HU {value:g} at {where} lies outside the HU table {self.name!r}, which covers {self.hu[0]:g} to "
            f"{self.hu[-1]:g} HU and does not clip; use a table that reaches it, or one that clips"
        )

    def announce_clipped(self, hu: npt.ArrayLike, where: str) -> None:
        """Say how many values [HU] lie beyond the ends of the table and take the density of the end."""
        values = np.asarray(hu)
        for beyond, end, side in ((values < self.hu[0], 0, "below"), (values > self.hu[-1], -1, "above")):
            if beyond.any():
                extreme = values[beyond].min() if end == 0 else values[beyond].max()
                logger.warning(
                    "%s: %d voxels %s %g HU (as far as %g) take the density at the end of the HU table %r, %g",
                    where, np.count_nonzero(beyond), side, self.hu[end], extreme, self.name, self.density[end],
                )  # fmt: skip


_SCHNEIDER = (
    (-1024.0, 0.00109),
    (-1000.0, 0.00109),
    (-700.0, 0.3076),
    (-500.0, 0.5118),
    (-300.0, 0.7160),
    (-150.0, 0.8692),
    (-98.0, 0.9332),
    (-50.0, 0.9712),
    (0.0, 1.0),
    (20.0, 1.0215),
    (60.0, 1.0642),
    (200.0, 1.1138),
    (300.0, 1.1607),
    (400.0, 1.2115),
    (500.0, 1.2626),
    (700.0, 1.3632),
    (1000.0, 1.5145),
    (1300.0, 1.6652),
    (1500.0, 1.7667),
    (1600.0, 1.8216),
    (2000.0, 2.0412),
    (3071.0, 2.5378),
)
_MATRAD = (
    (-1024.0, 0.001),
    (-999.0, 0.001),
    (-90.0, 0.95),
    (-45.0, 0.99),
    (0.0, 1.0),
    (100.0, 1.095),
    (350.0, 1.199),
    (3000.0, 2.505),
)


def _named(name: str, points: tuple[tuple[float, float], ...]) -> HUTable:
    return HUTable(name, tuple(p[0] for p in points), tuple(p[1] for p in points))


HU_TABLES: dict[str, HUTable] = {
    "schneider": _named("schneider", _SCHNEIDER),
    "matrad": _named("matrad", _MATRAD),
}
"""The built-in tables by name.

`schneider`, the default: mass density and composition of Schneider et al. 2000 as electron density relative to water,
through water (0 HU is 1.000, where the paper has soft tissue of 1.014) and with a straight line from 60 to 200 HU
across the paper's downward step at 101 HU (within 2.1 % of the paper on both sides). Source: Schneider, Bortfeld,
Schlegel, Phys. Med. Biol. 45 (2000) 459.
`matrad`: the table matRad 3 falls back to. Source: matRad, matRad_default.hlut (BSD-3).
"""


def hu_table(name_or_path: str | Path) -> HUTable:
    """Return a built-in HU table by name, or read one from a two-column text file.

    The file holds one point per line, HU and density, separated by spaces, tabs, a comma or a semicolon. Empty lines,
    lines that start with ``#`` and one line of column titles are passed over. matRad's ``.hlut`` files are such files.

    Raises
    ------
    UnknownNameError
        When there is neither a table nor a file of that name.
    FileError
        When a line cannot be read as two numbers, or the points are no table.

    >>> hu_table("schneider").relative_density(0.0).item()
    1.0
    """
    if str(name_or_path) in HU_TABLES:
        return HU_TABLES[str(name_or_path)]
    path = Path(name_or_path)
    if not path.is_file():
        if path.suffix or len(path.parts) > 1:
            raise FileError(path, "no such file; expected an HU table of two columns, HU and relative density")
        raise UnknownNameError("HU table", str(name_or_path), HU_TABLES)
    points = _read_points(path)
    try:
        return HUTable(path.name, tuple(p[0] for p in points), tuple(p[1] for p in points))
    except InputError as error:
        raise FileError(path, str(error)) from None


def _read_points(path: Path) -> list[tuple[float, float]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(path, f"cannot be read as text ({error})") from None
    points: list[tuple[float, float]] = []
    titled = False
    for number, line in enumerate(lines, start=1):
        words = line.replace(",", " ").replace(";", " ").split()
        if not words or words[0].startswith("#"):
            continue
        try:
            hu, density = (float(word) for word in words)
        except ValueError:
            if not points and not titled:
                titled = True
                continue
            raise FileError(path, f"line {number} is {line.strip()!r}; expected two numbers, HU and density") from None
        points.append((hu, density))
    return points
