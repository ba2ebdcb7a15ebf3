"""MATLAB v7.3 files (HDF5) as the same variables, cells and structs that SciPy makes of older ones.

MATLAB turns every array round (its columns are HDF5's rows), writes text as 16-bit codes and cells as references; the
attribute ``MATLAB_class`` says which is which. Nothing outside the file is followed. Extra ``images`` (h5py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from radplan.errors import FileError, InputError

_DEPTH = 40
_ELEMENTS = 300_000
_ALWAYS = 2**29
_RATIO = 60
"""Values may take half a gigabyte, and in files that are large themselves 60 times their size."""


def load_hdf5(path: Path, names: Sequence[str], plain: bool = False) -> dict[str, Any]:
    """Return the named variables of a MATLAB v7.3 file, those that are there.

    Parameters
    ----------
    path : Path
        The file.
    names : sequence of str
        Names of variables.
    plain : bool
        Whether structs become dicts; SciPy's ``mat_struct`` otherwise.

    Raises
    ------
    InputError
        When h5py is not installed.
    FileError
        When the file is damaged, leads outside itself, or claims more than a file of its size holds.
    """
    try:
        import h5py
    except ImportError as error:
        raise InputError(
            f"{path} is a MATLAB v7.3 (HDF5) file, which needs h5py: pip install 'radplan[images]', or save it "
            "again in MATLAB with save(..., '-v7')"
        ) from error
    try:
        with h5py.File(path, "r") as file:
            walk = _Walk(path, file, h5py, plain)
            return {name: walk.member(file, name, 0) for name in names if name in file}
    except FileError:
        raise
    except Exception as error:  # damaged bytes make HDF5 fail in any of a dozen ways
        said = " ".join(str(error).split())[:200]
        raise FileError(path, f"is cut short or damaged ({type(error).__name__}: {said}); export it again") from None


class _Walk:
    """One reading of a file, which counts what it has made so far."""

    def __init__(self, path: Path, file: Any, h5py: Any, plain: bool) -> None:
        self.path = path
        self.file = file
        self.h5py = h5py
        self.plain = plain
        self.elements = 0
        self.bytes = 0
        self.most = max(_ALWAYS, _RATIO * path.stat().st_size)

    def member(self, group: Any, name: str, depth: int) -> Any:
        """Return what a name in a group stands for."""
        if not isinstance(group.get(name, getlink=True), self.h5py.HardLink):
            raise FileError(self.path, f"{name} leads outside the file, which is not followed")
        return self.value(group[name], depth)

    def value(self, item: Any, depth: int) -> Any:
        """Return a dataset as an array, a text or a list of cells, a group as a struct."""
        self.elements += 1
        if depth > _DEPTH or self.elements > _ELEMENTS:
            raise FileError(self.path, f"is nested deeper than {_DEPTH} levels or holds more than {_ELEMENTS} elements")
        kind = item.attrs.get("MATLAB_class", b"")
        kind = kind.decode() if isinstance(kind, bytes) else str(kind)
        if isinstance(item, self.h5py.Group):
            return self._group(item, kind, depth)
        self._count(item)
        if item.attrs.get("MATLAB_empty", 0):
            return "" if kind == "char" else np.zeros(0)
        values = np.asarray(item[()]).T
        if values.dtype == object:
            return self._referred(values, depth)
        if kind == "char":
            return self._text(values)
        return _squeezed(values)

    def _group(self, item: Any, kind: str, depth: int) -> Any:
        if kind not in ("struct", ""):
            raise FileError(self.path, f"{item.name} is a MATLAB {kind}, which cannot be read")
        members = {name: self.member(item, name, depth + 1) for name in item}
        if self.plain:
            return members
        from scipy.io.matlab import mat_struct

        made = mat_struct()
        made.__dict__.update({"_fieldnames": list(members), **members})
        return made

    def _count(self, item: Any) -> None:
        if item.external or item.is_virtual:
            raise FileError(self.path, f"{item.name} keeps its values outside the file, which is not followed")
        self.bytes += int(item.size or 0) * int(item.dtype.itemsize)
        if self.bytes > self.most:
            raise FileError(self.path, f"claims {self.bytes:.3g} bytes, more than a file of its size holds")

    def _referred(self, values: Any, depth: int) -> Any:
        found = np.empty(values.shape, dtype=object)
        for place, reference in np.ndenumerate(values):
            found[place] = self.value(self.file[reference], depth + 1) if reference else np.zeros(0)
        return _squeezed(found)

    def _text(self, codes: Any) -> Any:
        rows = ["".join(chr(int(code)) for code in row) for row in np.atleast_2d(codes)]
        return rows[0] if len(rows) == 1 else np.asarray(rows)


def _squeezed(values: Any) -> Any:
    """Return an array without axes of length one, a single value by itself, as SciPy does."""
    flat = np.squeeze(values)
    return flat.item() if flat.shape == () else flat
