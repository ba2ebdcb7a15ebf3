"""States of a training on disk: safetensors and JSON in a folder of their own, written whole or not at all."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from radplan.errors import FileError

_STEP = re.compile(r"step-(\d{8})")


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Any]], state: Mapping[str, Any]
) -> Path:
    """Write tensors by group and a state of plain data as ``step-NNNNNNNN``, and remove older ones.

    The folder is written beside its place, flushed to the disk and renamed, so that a training that is killed leaves
    the checkpoint before, or this one, whole.

    Raises
    ------
    FileError
        When the disk is full or the folder cannot be written.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    draft, final = folder / f".draft-{os.getpid()}", folder / f"step-{step:08d}"
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        for group, entries in tensors.items():
            save_file({key: value.contiguous() for key, value in entries.items()}, draft / f"{group}.safetensors")
        (draft / "state.json").write_text(json.dumps({**state, "step": step}, indent=1))
        for path in (*draft.iterdir(), draft):
            _flush(path)
        if final.exists():
            shutil.rmtree(final)
        draft.rename(final)
        _flush(folder)
    except OSError as error:
        raise FileError(folder, f"the checkpoint of step {step} cannot be written: {error.strerror or error}") from None
    for path in folder.iterdir():
        match = _STEP.fullmatch(path.name)
        if match and int(match[1]) < step:
            shutil.rmtree(path, ignore_errors=True)
    return final


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint of a training, or None."""
    if not folder.is_dir():
        return None
    steps = {int(match[1]): path for path in folder.iterdir() if (match := _STEP.fullmatch(path.name))}
    return steps[max(steps)] if steps else None


def read_checkpoint(path: Path, groups: tuple[str, ...]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Return tensors by group, on the CPU, and the state of a checkpoint.

    Raises
    ------
    FileError
        When a file is missing or damaged.
    """
    try:
        state = json.loads((path / "state.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise FileError(path / "state.json", f"is no state of a training ({error})") from None
    return {group: read_tensors(path / f"{group}.safetensors") for group in groups}, state


def read_tensors(path: Path) -> dict[str, Any]:
    """Return the tensors of a safetensors file, on the CPU; pickles are refused.

    Raises
    ------
    FileError
        When it is missing, damaged or no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with path.open("rb") as stream:
            start = stream.read(2)
        if start == b"PK" or (start[:1] == b"\x80" and start[1:] in (b"\x02", b"\x03", b"\x04", b"\x05")):
            raise FileError(path, "is a pickle, which could run code when read: save the weights as safetensors")
        tensors: dict[str, Any] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise FileError(path, f"cannot be read as safetensors ({error})") from None
    return tensors


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
