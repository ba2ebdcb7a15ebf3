"""The container of radplan's machine files: one npz of arrays with a JSON header that names the format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from radplan.arrays import Array
from radplan.arrays.npz import read_npz
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
    content: dict[str, Array] = dict(read_npz(path))
    try:
        header = json.loads(str(content.pop("header")))
    except (KeyError, ValueError, RecursionError) as error:
        raise FileError(path, "has no radplan header: is it a machine file?") from error
    if not isinstance(header, dict):
        raise FileError(path, f"has a header that is a {type(header).__name__}, expected names and values")
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
