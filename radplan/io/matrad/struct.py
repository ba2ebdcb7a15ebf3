"""MATLAB variables, cells and structs as SciPy reads them, with errors that name the file and the field."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import numpy as np

from radplan.errors import FileError
from radplan.io.matrad.checked import check_mat
from radplan.io.matrad.hdf5 import load_hdf5

_HDF5 = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class Fields:
    """The fields of one MATLAB struct; asking for one that is not there names the file and the struct.

    >>> Fields(Path("a.mat"), "ct", {"x": 1})["y"]
    Traceback (most recent call last):
    ...
    radplan.errors.FileError: a.mat: ct has no field y (it has: x)
    """

    path: Path
    name: str
    values: dict[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the fields that are there."""
        return tuple(self.values)

    def __getitem__(self, key: str) -> Any:
        if key not in self.values:
            raise FileError(self.path, f"{self.name} has no field {key} (it has: {', '.join(self.values) or 'none'})")
        return self.values[key]


def load_variables(path: Path, names: Sequence[str], **options: Any) -> dict[str, Any]:
    """Read the named variables of a MATLAB v5 to v7.3 file, those that are there; structs stay SciPy's.

    A file before v7.3 is walked through first (`radplan.io.matrad.checked`), since SciPy can end the process on a
    damaged one.

    Parameters
    ----------
    path : Path
        The file.
    names : sequence of str
        Names of variables.
    options
        For `scipy.io.loadmat`, in place of squeezed arrays and structs as objects.

    Raises
    ------
    FileError
        When the file is missing, not MATLAB's, cut short or damaged.
    InputError
        When it is of version 7.3 (HDF5) and h5py is not installed.
    """
    from scipy.io import loadmat

    if not path.is_file():
        raise FileError(path, "is a folder; expected a .mat file" if path.is_dir() else "no such file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileError(path, f"cannot be opened ({error.strerror})") from None
    if content.startswith((b"MATLAB 7.3", _HDF5)) or content[512:520] == _HDF5:
        return load_hdf5(path, names, plain=bool(options))
    if not content.startswith(b"MATLAB 5.0"):
        raise FileError(path, "is not a MATLAB v5 to v7 .mat file (its header does not say so)")
    check_mat(path, content, names)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kept: dict[str, Any] = options or {"squeeze_me": True, "struct_as_record": False}
            loaded = loadmat(cast(Any, BytesIO(content)), variable_names=list(names), **kept)
    except Exception as error:  # damaged bytes make SciPy fail in any of a dozen ways
        said = " ".join(str(error).split())[:200]
        raise FileError(path, f"is cut short or damaged ({type(error).__name__}: {said}); export it again") from None
    return {name: loaded[name] for name in names if name in loaded}


def fields(path: Path, name: str, value: Any) -> Fields:
    """Return the fields of a struct, or raise `FileError` when `value` is none."""
    from scipy.io.matlab import mat_struct

    if isinstance(value, np.ndarray) and value.size == 1 and value.dtype == object:
        value = value.reshape(-1)[0]
    if not isinstance(value, mat_struct):
        raise FileError(path, f"{name} must be a struct, got {type(value).__name__}")
    return Fields(path, name, {key: value.__dict__[key] for key in value.__dict__["_fieldnames"]})


def cells(value: Any) -> list[Any]:
    """Return the entries of a cell array, of a struct array, or of one of either that SciPy has unpacked."""
    if isinstance(value, np.ndarray):
        return list(value.reshape(-1))
    return [value]


def number(path: Path, name: str, value: Any) -> float:
    """Return a real finite number, or raise `FileError` naming the field.

    >>> number(Path("a.mat"), "ct.resolution.x", np.asarray(3))
    3.0
    """
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise FileError(path, f"{name} must be a number, got {value!r}")
    return float(array.reshape(-1)[0])


def text(value: Any) -> str:
    """Return a MATLAB char array as text; what is none becomes ''."""
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    return str(array.reshape(-1)[0]) if array.dtype.kind == "U" and array.size == 1 else ""
