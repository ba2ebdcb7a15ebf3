"""Folders and files written whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from radplan.errors import FileError


@contextmanager
def staged(folder: str | Path) -> Iterator[Path]:
    """Give a folder to write into whose files move to `folder` when the block ends well; otherwise nothing stays.

    Raises
    ------
    FileError
        The folder cannot be written, or is a file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as place:
    ...     with staged(Path(place, "out")) as partial:
    ...         _ = Path(partial, "note.txt").write_text("whole")
    ...     Path(place, "out", "note.txt").read_text()
    'whole'
    """
    folder = Path(folder)
    # Why: on the same file system as the folder, so that each file moves in one step.
    anchor = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not anchor.is_dir():
        raise FileError(anchor, "is a file, expected a folder to write the plan into")
    partial = None
    try:
        partial = Path(tempfile.mkdtemp(prefix=".radplan-", dir=anchor))
        yield partial
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(partial.iterdir(), key=lambda entry: entry.stat().st_mtime_ns):
            path.replace(folder / path.name)
    except OSError as error:
        raise FileError(error.filename or folder, f"cannot be written ({error.strerror})") from None
    finally:
        if partial is not None:
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
