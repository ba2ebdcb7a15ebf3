"""The errors radplan raises: one family, a few kinds, written for the physicist who reads them.

Every message says what was given, what was expected and what to do. Catch `RadplanError` to catch them all.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class RadplanError(Exception):
    """Base of every error that radplan raises on purpose.

    >>> issubclass(InputError, RadplanError)
    True
    """


class InputError(RadplanError, ValueError):
    """A value that was given cannot be used.

    >>> raise InputError("bixel_width must be > 0 mm, got -5.0")
    Traceback (most recent call last):
    ...
    radplan.errors.InputError: bixel_width must be > 0 mm, got -5.0
    """


class UnknownNameError(RadplanError, KeyError):
    """A name that nothing answers to; the message offers the nearest known one.

    Parameters
    ----------
    kind : str
        What was looked for, such as ``"quantity"`` or ``"structure"``.
    name : str
        The name as given.
    known : iterable of str
        The names that would have been found.
    why : str
        Why this one is not among them, where that is known; takes the place of the nearest name.

    >>> raise UnknownNameError("quantity", "efect", ["effect", "let"])
    Traceback (most recent call last):
    ...
    radplan.errors.UnknownNameError: no quantity named 'efect'; did you mean 'effect'? (known: effect, let)
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], why: str = "") -> None:
        names = sorted({str(entry) for entry in known})
        self.given = (kind, name, tuple(names), why)
        folded = {entry.casefold(): entry for entry in reversed(names)}
        near = difflib.get_close_matches(str(name).casefold(), list(folded), n=1, cutoff=0.5)
        hint = f"; did you mean {folded[near[0]]!r}?" if near else ";"
        hint = f": {why};" if why else hint
        listing = f" (known: {', '.join(names)})" if names else " (none is known)"
        self.message = f"no {kind} named {name!r}{hint}{listing}"
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, str, tuple[str, ...], str]]:
        return UnknownNameError, self.given


class FileError(RadplanError):
    """A file or folder that cannot be read or written; names it and says why.

    Parameters
    ----------
    path : path-like
        The file at fault.
    cause : str
        What is wrong with it and what would help.
    item : str
        Which part of the file is at fault, where it has parts.

    >>> str(FileError("plan.yaml", "is empty"))
    'plan.yaml: is empty'
    >>> str(FileError("plan.dcm", "has no isocentre", "beam 2"))
    'plan.dcm: beam 2: has no isocentre'
    """

    def __init__(self, path: str | Path, cause: str, item: str = "") -> None:
        self.path, self.cause, self.item = Path(path), cause, item
        super().__init__(f"{path}: {item}: {cause}" if item else f"{path}: {cause}")

    def __reduce__(self) -> tuple[type[FileError], tuple[Path, str, str]]:
        return FileError, (self.path, self.cause, self.item)


class CalculationError(RadplanError, RuntimeError):
    """A calculation that started from valid input but cannot go on (NaN, nothing to optimise).

    >>> issubclass(CalculationError, RuntimeError)
    True
    """
