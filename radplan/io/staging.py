"""Folders and files written whole or not at all.

A folder of results is one result: ``files.json`` lists what belongs to it with checksums. A new result takes the place
of the old one in a single step of the file system where it has the folder for itself; beside files of others it is
moved in from ``.radplan-commit``, and whoever reads or writes next finishes what was cut short (`recovered`).
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from radplan import __version__
from radplan.errors import FileError

MANIFEST = "files.json"
"""Lists the files of a result."""

FORMAT = 1
"""Version of the layout of saved results; a reader refuses larger ones."""

NOTICE = "research software, not for clinical use"
"""What every exported file says."""

_COMMIT = ".radplan-commit"
_EXCHANGE = 2


@contextmanager
def staged(folder: str | Path, whole: bool = True) -> Iterator[Path]:
    """Give a folder to write into whose files appear in `folder` when the block ends well; otherwise nothing stays.

    Parameters
    ----------
    folder : path-like
        Where the files go; made if need be.
    whole : bool
        Whether they are a whole result, so that files of an earlier one go; else they join what is there. Files that
        no result lists are left alone.

    Raises
    ------
    FileError
        The folder cannot be written, or is a file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     with staged(Path(place, "out")) as partial:
    ...         _ = Path(partial, "note.txt").write_text("whole")
    ...     Path(place, "out", "note.txt").read_text(), listed(Path(place, "out"))
    ('whole', ('note.txt',))
    """
    folder = Path(folder)
    anchor = _anchor(folder)
    partial = anchor / f".radplan-{platform.node()}-{os.getpid()}-{uuid4().hex[:12]}"
    try:
        _sweep(anchor)
        recovered(folder)
        partial.mkdir()
        yield partial
        _write_manifest(partial, {} if whole else _manifest(folder))
        _commit(partial, folder, whole)
    except OSError as error:
        raise FileError(error.filename or folder, f"cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """Give a file to write that takes the name `path` when the block ends well; otherwise nothing stays.

    Raises
    ------
    FileError
        The file cannot be written.
    """
    # Why not tempfile: its files are readable by their owner alone, whatever the user's umask says.
    partial = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise FileError(path, f"cannot be written: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)


def listed(folder: str | Path) -> tuple[str, ...]:
    """Return the names of the files that the result in a folder consists of; none where there is no list."""
    return tuple(_manifest(Path(folder)))


def changed(folder: str | Path) -> tuple[str, ...]:
    """Return which listed files are missing or are not as they were written."""
    folder = Path(folder)
    known = _manifest(folder)
    return tuple(name for name, digest in known.items() if not _is(folder / name, digest))


def recovered(folder: str | Path) -> Path:
    """Return the folder after finishing a result whose move into it was cut short.

    Raises
    ------
    FileError
        When the rest cannot be moved.
    """
    folder = Path(folder)
    if (folder / _COMMIT).is_dir():
        try:
            _finish(folder)
        except OSError as error:
            raise FileError(folder, f"holds a result that was cut short, and cannot be written ({error})") from None
    return folder


def _anchor(folder: Path) -> Path:
    """Return where to stage: beside a folder that can be exchanged, so that files move in one step; else inside it."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise FileError(nearest, "is a file, expected a folder to write into")
    parent = folder.absolute().parent
    beside = (
        nearest == folder and not folder.is_symlink() and os.access(parent, os.W_OK) and not os.path.ismount(folder)
    )
    return parent if beside else nearest


def _commit(partial: Path, folder: Path, whole: bool) -> None:
    """Move what was staged to where it belongs."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial.rename(folder)
        return
    own = {*listed(folder), MANIFEST}
    alone = all(path.name in own for path in folder.iterdir())
    inside = Path.cwd().is_relative_to(folder.resolve())
    if whole and alone and not inside and not folder.is_symlink():
        shutil.copymode(folder, partial)
        if _exchanged(partial, folder):
            return
    if whole:
        partial.rename(folder / _COMMIT)
        try:
            _finish(folder)
        except KeyboardInterrupt:
            _finish(folder)
            raise
        return
    for path in sorted(partial.iterdir(), key=lambda entry: entry.name == MANIFEST):
        path.replace(folder / path.name)


def _finish(folder: Path) -> None:
    """Move a result in from its folder of commitment; may be repeated from any point."""
    commit = folder / _COMMIT
    wanted = _manifest(commit)
    for name in listed(folder):
        if name not in wanted:
            (folder / name).unlink(missing_ok=True)
    for path in sorted(commit.iterdir(), key=lambda entry: entry.name == MANIFEST):
        path.replace(folder / path.name)
    commit.rmdir()


def _exchanged(first: Path, second: Path) -> bool:
    """Exchange two folders in one step; False where the system cannot."""
    library = ctypes.CDLL(None, use_errno=True) if sys.platform != "win32" else None
    names = os.fsencode(first), os.fsencode(second)
    if sys.platform.startswith("linux"):
        rename = getattr(library, "renameat2", None)
        here = -100
        return rename is not None and rename(here, names[0], here, names[1], _EXCHANGE) == 0
    rename = getattr(library, "renamex_np", None)
    return rename is not None and rename(*names, _EXCHANGE) == 0


def _write_manifest(folder: Path, earlier: Mapping[str, str]) -> None:
    own = {path.name: _digest(path) for path in sorted(folder.iterdir()) if path.is_file() and path.name != MANIFEST}
    data = {"format": FORMAT, "radplan": __version__, "notice": NOTICE, "id": uuid4().hex, "files": {**earlier, **own}}
    (folder / MANIFEST).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def _manifest(folder: Path) -> dict[str, str]:
    """File name -> checksum of the result in a folder; empty where there is no list or it cannot be read."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    if not isinstance(files, dict):
        return {}
    return {name: str(digest) for name, digest in files.items() if Path(name).name == name}


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and _digest(path) == digest


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sweep(anchor: Path) -> None:
    """Remove what processes of this machine that are no more have left half written."""
    if sys.platform == "win32":
        return
    for path in anchor.glob(f".radplan-{platform.node()}-*-*"):
        number = path.name.rsplit("-", 2)[1]
        if number.isdigit() and not _runs(int(number)):
            shutil.rmtree(path, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
