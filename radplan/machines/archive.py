"""The container of radplan's machine files: one npz of arrays with a JSON header that names the format."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from radplan.arrays import Array
from radplan.errors import FileError


def write_archive(path: str | Path, header: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Write a header of plain data, its ``"format"`` among it, and arrays."""
    with Path(path).open("wb") as stream:
        np.savez_compressed(stream, header=np.asarray(json.dumps(dict(header), sort_keys=True)), **arrays)


def read_archive(path: str | Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return header and arrays of a file that `write_archive` wrote.

    Raises
    ------
    FileError
        When the file is missing, damaged or has no header.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            content: dict[str, Array] = {
                entry.removesuffix(".npy"): np.load(io.BytesIO(archive.read(entry)), allow_pickle=False)
                for entry in archive.namelist()
            }
    except FileNotFoundError as error:
        raise FileError(path, "no such file") from error
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise FileError(path, f"is not a readable radplan machine file ({error})") from error
    try:
        header: dict[str, Any] = json.loads(str(content.pop("header")))
    except (KeyError, json.JSONDecodeError) as error:
        raise FileError(path, "has no radplan header: is it a machine file?") from error
    return header, content


def require(
    path: Path,
    header: Mapping[str, Any],
    expected: str,
    entries: Sequence[str],
    found: Mapping[str, Array],
    arrays: Sequence[str],
) -> None:
    """Raise a FileError when the format is another, or entries of the header or arrays are missing."""
    if header.get("format") != expected:
        raise FileError(path, f"has format {header.get('format')!r}, expected {expected!r}")
    missing = [name for name in entries if name not in header]
    if missing:
        raise FileError(path, f"header lacks {', '.join(missing)}")
    missing = [name for name in arrays if name not in found]
    if missing:
        raise FileError(path, f"lacks {', '.join(missing)}: write it again with radplan")
