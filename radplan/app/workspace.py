"""The folder that the app may read and write, and nothing outside it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from radplan.errors import FileError, InputError
from radplan.patient.phantoms import PHANTOMS

PLANS = "radplan-plans"
"""Folder within the opened one that plans are written to."""

LARGEST = 64 * 1024 * 1024
"""Largest file that may be uploaded [byte]."""

_UPLOADS = (".mat", ".yaml", ".yml", ".json")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.+-]{0,79}")
_MOST = 500


@dataclass(frozen=True)
class Workspace:
    """A folder with cases; every path that comes from a browser is looked up in it.

    Parameters
    ----------
    root : Path
        The opened folder.

    Raises
    ------
    FileError
        When it is no folder.
    """

    root: Path

    def __post_init__(self) -> None:
        if not self.root.is_dir():
            raise FileError(self.root, "is no folder; the app opens a folder with cases")
        object.__setattr__(self, "root", self.root.resolve())

    def inside(self, name: str) -> Path:
        """Return the path of a name within the folder.

        Raises
        ------
        InputError
            When it leads outside, by dots or by a link.
        """
        path = (self.root / name).resolve()
        if not path.is_relative_to(self.root) or "\0" in name:
            raise InputError("only what lies in the opened folder can be read or written")
        return path

    def cases(self) -> list[str]:
        """Return what may be a case: built-in phantoms, .mat files and folders, plans of the app apart."""
        entries = sorted(self.root.iterdir())[:_MOST]
        named = [e.name for e in entries if not e.name.startswith(".") and e.name != PLANS]
        files = [name for name in named if name.lower().endswith((".mat", ".npz"))]
        folders = [name for name in named if (self.root / name).is_dir()]
        return [*PHANTOMS, *folders, *files]

    def case(self, name: str) -> str:
        """Return what `radplan.load_patient` takes for the name of a case.

        Raises
        ------
        InputError
            When it leads outside the folder, or a link in it does.
        """
        if name in PHANTOMS:
            return name
        path = self.inside(name)
        if path.is_dir():
            for entry in path.rglob("*"):
                if entry.is_symlink() and not entry.resolve().is_relative_to(self.root):
                    raise InputError(f"{name} holds a link that leads outside the opened folder")
        return str(path)

    def plan_folder(self, name: str) -> Path:
        """Return the folder of a plan's name.

        Raises
        ------
        InputError
            When the name has other than letters, digits, blanks and ``_.+-``, or more than 80 of them.
        """
        if not _NAME.fullmatch(name) or name.endswith("."):
            raise InputError(
                "a plan's name has 1 to 80 letters, digits, blanks and _ . + -, and begins with the first two"
            )
        return self.inside(f"{PLANS}/{name}")

    def receive(self, name: str, content: bytes) -> Path:
        """Write an uploaded file into the folder; return its path.

        Raises
        ------
        InputError
            When it is too large, of another kind, badly named, or there already.
        """
        if len(content) > LARGEST:
            raise InputError(
                f"files up to {LARGEST // 2**20} MB can be uploaded, this one has {len(content) / 2**20:.0f}"
            )
        if not _NAME.fullmatch(name) or not name.lower().endswith(_UPLOADS):
            raise InputError(f"files that end in {', '.join(_UPLOADS)} can be uploaded, under a plain name")
        path = self.inside(name)
        if path.exists():
            raise InputError(f"{name} is there already: rename one of them")
        path.write_bytes(content)
        return path
