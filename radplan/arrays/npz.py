"""Archives of arrays from outside: looked at before anything is unpacked or allocated."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from radplan.errors import FileError

_ALWAYS = 512_000_000
_RATIO = 200
"""Archives may unpack to half a gigabyte, and to more where they are large themselves: 200 times their size."""

_HEADER = 10_000
"""Longest header of an array that is looked at [bytes]."""


def read_npz(path: Path, names: Iterable[str] | None = None) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays of an ``.npz`` file by name, all of them or those named that are there.

    Raises
    ------
    FileError
        When the file is missing or no such archive, an entry's header is wrong or claims another size than is stored,
        or the whole would unpack to more than a file of its size holds.
    """
    try:
        with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            entries = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            wanted = list(entries) if names is None else [name for name in names if name in entries]
            largest = max(_ALWAYS, _RATIO * path.stat().st_size)
            total = sum(entries[name].file_size for name in wanted)
            if total > largest:
                raise FileError(path, f"would unpack to {total / 1e9:.1f} GB: more than a file of its size holds")
            return {name: _array(path, name, archive.read(entries[name])) for name in wanted}
    except FileNotFoundError:
        raise FileError(path, "no such file") from None
    except FileError:
        raise
    except (
        OSError, EOFError, ValueError, TypeError, AttributeError, LookupError, NotImplementedError, RuntimeError,
        OverflowError, zlib.error, zipfile.BadZipFile,
    ) as error:  # fmt: skip
        raise FileError(
            path, f"is no archive of arrays that can be read ({' '.join(str(error).split())[:200]})"
        ) from None


def _array(path: Path, name: str, content: bytes) -> np.ndarray[Any, Any]:
    """Return the array of an entry whose header says what is there."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise FileError(path, f"array {name}: is of an unknown version {version}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream, max_header_size=_HEADER)
    if dtype.hasobject:
        raise FileError(path, f"array {name}: holds Python objects, which are not read")
    claimed, stored = math.prod(shape) * dtype.itemsize, len(content) - stream.tell()
    if claimed != stored or min(shape, default=0) < 0:
        raise FileError(path, f"array {name}: its header claims {claimed} bytes, {stored} are stored")
    stream.seek(0)
    return np.asarray(np.load(stream, allow_pickle=False))
