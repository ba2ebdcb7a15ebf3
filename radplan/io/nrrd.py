"""NRRD volumes, as 3D Slicer exports doses and images: plain or gzip, one file, axes along the patient's."""

from __future__ import annotations

import math
import re
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from radplan.errors import FileError, InputError
from radplan.geometry.grid import Grid

_TYPES = {
    **dict.fromkeys(("float",), "f4"),
    **dict.fromkeys(("double",), "f8"),
    **dict.fromkeys(("short", "int16", "int16_t", "signed short"), "i2"),
    **dict.fromkeys(("unsigned short", "ushort", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "int32", "int32_t", "signed int"), "i4"),
    **dict.fromkeys(("unsigned char", "uchar", "uint8", "uint8_t"), "u1"),
}
_ALWAYS, _RATIO = 512_000_000, 200
"""Volumes may take half a gigabyte, and more where the file is large itself: 200 times its size."""

_SPACES = {
    **dict.fromkeys(("left-posterior-superior", "lps"), (1.0, 1.0, 1.0)),
    **dict.fromkeys(("right-anterior-superior", "ras"), (-1.0, -1.0, 1.0)),
}


def read_nrrd(path: str | Path) -> tuple[npt.NDArray[np.float64], Grid]:
    """Return the values ``[z, y, x]`` of a three-dimensional NRRD file and their grid in LPS.

    Parameters
    ----------
    path : path-like
        The file; header and data in one, ``raw`` or ``gzip``.

    Raises
    ------
    FileError
        When the file cannot be read, has another layout, or axes that are not parallel to the patient's.
    """
    path = Path(path)
    try:
        head, _, body = path.read_bytes().partition(b"\n\n")
        text = head.decode("ascii")
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise FileError(path, "is no NRRD file") from None
    if not text.startswith("NRRD"):
        raise FileError(path, "is no NRRD file")
    fields = {}
    for line in text.splitlines()[1:]:
        key, _, value = line.partition(":")
        if value and not line.startswith("#"):
            fields[key.strip().lower()] = value.lstrip("=").strip()
    try:
        values = _values(fields, body)
        signs = np.asarray(_SPACES[fields["space"].lower()])
        directions = _vectors(fields["space directions"]) * signs
        origin = _vectors(fields["space origin"])[0] * signs
    except KeyError as error:
        raise FileError(path, f"states {error} in a way that is not understood, or not at all") from None
    except (ValueError, IndexError, OverflowError, zlib.error) as error:
        raise FileError(path, f"is no NRRD volume that can be read ({error})") from None
    if directions.shape != (3, 3) or not np.isfinite([*directions.ravel(), *origin]).all():
        raise FileError(path, "states no three finite space directions and origin")
    if not np.isfinite(values).all():
        raise FileError(path, "holds values that are NaN or infinite")
    try:
        return _along_axes(path, values, directions, origin)
    except InputError as error:
        raise FileError(path, str(error)) from None


def _values(fields: dict[str, str], body: bytes) -> npt.NDArray[np.float64]:
    sizes = [int(size) for size in fields["sizes"].split()]
    if len(sizes) != 3 or "data file" in fields or "datafile" in fields:
        raise ValueError("expected three dimensions in one file")
    order = ">" if fields.get("endian", "little").lower() == "big" else "<"
    dtype = np.dtype(order + _TYPES[fields["type"].lower()])
    needed = math.prod(sizes) * dtype.itemsize
    if min(sizes) < 1 or 8 * math.prod(sizes) > max(_ALWAYS, _RATIO * len(body)):
        raise ValueError(f"sizes {sizes} are not those of a volume that a file of {len(body)} bytes holds")
    if fields["encoding"].lower() in ("gzip", "gz"):
        unpacker = zlib.decompressobj(wbits=31)
        body = unpacker.decompress(body, needed)
        if unpacker.decompress(unpacker.unconsumed_tail, 1) or not unpacker.eof:
            raise ValueError(f"the compressed data are not the {needed} bytes that sizes say")
    elif fields["encoding"].lower() != "raw":
        raise KeyError("encoding")
    stored = np.frombuffer(body, dtype=dtype, count=math.prod(sizes))
    return stored.reshape(sizes[::-1]).astype(np.float64)


def _vectors(text: str) -> npt.NDArray[np.float64]:
    """Return the vectors of a text such as ``(1,0,0) (0,1,0)``, one a row."""
    rows = [[float(number) for number in inner.split(",")] for inner in re.findall(r"\(([^)]*)\)", text)]
    found = np.asarray(rows)
    if found.ndim != 2 or found.shape[1] != 3:
        raise ValueError(f"{text!r} are no vectors of three numbers")
    return found


def _along_axes(
    path: Path, values: npt.NDArray[np.float64], directions: npt.NDArray[np.float64], origin: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], Grid]:
    """Return the volume with rising world axes: permuted and flipped, never resampled."""
    axes = np.argmax(np.abs(directions), axis=1)
    steps = directions[np.arange(3), axes]
    slanted = np.abs(directions).sum(axis=1) - np.abs(steps)
    if sorted(axes.tolist()) != [0, 1, 2] or np.any(slanted > 1e-3 * np.abs(steps)):
        raise FileError(path, "has axes that are not parallel to the patient's; resample it first")
    first, order = origin.copy(), [0, 0, 0]
    for k, axis in enumerate(axes.tolist()):
        order[2 - axis] = 2 - k
        if steps[k] < 0:
            values = np.flip(values, axis=2 - k)
            first[axis] += steps[k] * (values.shape[2 - k] - 1)
    turned = np.ascontiguousarray(np.transpose(values, order))
    spacing = np.empty(3)
    spacing[axes] = np.abs(steps)
    grid = Grid(
        (turned.shape[0], turned.shape[1], turned.shape[2]),
        (float(spacing[0]), float(spacing[1]), float(spacing[2])),
        (float(first[0]), float(first[1]), float(first[2])),
    )
    return turned, grid
