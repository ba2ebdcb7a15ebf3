"""MATLAB files walked through before SciPy reads them: each size within its frame, nothing more than a file can hold.

SciPy takes tags at their word; a damaged one can end the process. What passes here is consistent.
Source: MathWorks, MAT-File Format, level 5.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from struct import Struct

from radplan.errors import FileError

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_SIZES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 16: 1, 17: 2, 18: 4}
"""Bytes of each data type that an element may be stored in."""

_CELL, _STRUCT, _OBJECT, _CHAR, _FUNCTION, _OPAQUE = 1, 2, 3, 4, 16, 17
_ITEMS = {6: 8, 7: 4, 8: 1, 9: 1, 10: 2, 11: 2, 12: 4, 13: 4, 14: 8, 15: 8}
"""Bytes of each numeric class in memory."""

_ALWAYS, _RATIO = 512_000_000, 60
"""Variables may hold half a gigabyte, and more in files that are large themselves: 60 times their size."""

_ELEMENTS = 300_000
"""Most elements of all variables together."""

_DEPTH = 40


def check_mat(path: Path, content: bytes, names: Sequence[str]) -> None:
    """Raise where a MATLAB v5 to v7 file is not what SciPy can take.

    Parameters
    ----------
    path : Path
        For messages.
    content : bytes
        All of it.
    names : sequence of str
        The variables that will be read; others are passed over by their frames.

    Raises
    ------
    FileError
        When a size leaves its frame, a type is none, or more is claimed than a file of its size holds.
    """
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None:
        raise FileError(path, "is cut short or damaged: its header states no order of bytes")
    walk = _Walk(path, order, max(_ALWAYS, _RATIO * len(content)))
    for body in walk.variables(content):
        walk.variable(body, names)


@dataclass
class _Frame:
    """Bytes of an element, and how far they were read."""

    data: bytes
    at: int
    end: int


@dataclass
class _Walk:
    """The way through one file, and what it has met so far."""

    path: Path
    order: str
    left: float
    elements: int = 0
    words: Struct = field(init=False)

    def __post_init__(self) -> None:
        self.words = Struct(f"{self.order}II")

    def fault(self, why: str) -> FileError:
        return FileError(self.path, f"is cut short or damaged ({why}); copy or export it again")

    def variables(self, content: bytes) -> Iterator[_Frame]:
        """Yield each variable's matrix element, unpacked."""
        frame = _Frame(content, _HEADER, len(content))
        while frame.at < frame.end:
            kind, part = self.element(frame, padded=False)
            if kind == _COMPRESSED:
                unpacker = zlib.decompressobj()
                try:
                    data = unpacker.decompress(part.data[part.at : part.end], int(self.left) + 1)
                except zlib.error as error:
                    raise self.fault(str(error)) from None
                self.take(len(data))
                kind, part = self.element(_Frame(data, 0, len(data)), padded=False)
            if kind != _MATRIX:
                raise self.fault(f"a variable of the unknown type {kind}")
            yield part

    def take(self, count: float) -> None:
        """Count bytes that reading will hold."""
        self.left -= count
        if self.left < 0:
            raise FileError(self.path, "would unpack to more than a file of its size holds: is it damaged?")

    def element(self, frame: _Frame, padded: bool = True) -> tuple[int, _Frame]:
        """Return type and frame of the next element, and go on behind it."""
        self.elements += 1
        if self.elements > _ELEMENTS:
            raise FileError(self.path, f"holds more than {_ELEMENTS} elements: is it a matRad file?")
        if frame.at + 8 > frame.end:
            raise self.fault("an element begins beyond its frame")
        kind, count = self.words.unpack_from(frame.data, frame.at)
        start = frame.at + 8
        if kind >> 16:  # a small element: size and type share a word, the data the next one
            kind, count, start = kind & 0xFFFF, kind >> 16, frame.at + 4
            if count > 4:
                raise self.fault(f"a small element of {count} bytes")
            frame.at += 8
        else:
            frame.at = start + count + (-count % 8 if padded and kind != _MATRIX else 0)
        if start + count > frame.end:
            raise self.fault(f"an element of {count} bytes reaches beyond its frame")
        frame.at = min(frame.at, frame.end)
        return kind, _Frame(frame.data, start, start + count)

    def values(self, frame: _Frame, kinds: Sequence[int] = tuple(_SIZES)) -> tuple[int, _Frame]:
        """Return type and frame of the next element, which holds numbers or characters of one of these types."""
        kind, part = self.element(frame)
        if kind not in kinds or kind not in _SIZES:
            raise self.fault(f"an element of type {kind} where another is expected")
        if (part.end - part.at) % _SIZES[kind]:
            raise self.fault(f"{part.end - part.at} bytes are no whole number of values of type {kind}")
        return kind, part

    def text(self, frame: _Frame) -> bytes:
        _, part = self.values(frame, (1, 2, 16))
        return part.data[part.at : part.end]

    def variable(self, frame: _Frame, names: Sequence[str]) -> None:
        """Look through a variable, if it is one of these names."""
        kind, count, name, flags = self.head(frame)
        if kind == _OPAQUE or name in names:
            self.content(frame, kind, count, flags, 0)

    def head(self, frame: _Frame) -> tuple[int, int, str, int]:
        """Return class, number of entries, name and flags of a matrix."""
        _, part = self.values(frame, (6,))
        if part.end - part.at != 8:
            raise self.fault("array flags of another length than 8 bytes")
        flags, _ = self.words.unpack_from(part.data, part.at)
        kind = flags & 0xFF
        if kind == _OPAQUE:
            return kind, 0, "", flags
        _, part = self.values(frame, (5,))
        rank = (part.end - part.at) // 4
        if not 2 <= rank <= 32:
            raise self.fault(f"an array of {rank} dimensions")
        lengths = Struct(f"{self.order}{rank}i").unpack_from(part.data, part.at)
        if min(lengths) < 0:
            raise self.fault("a negative length")
        return kind, math.prod(lengths), self.text(frame).decode("latin-1"), flags

    def matrix(self, frame: _Frame, depth: int) -> None:
        """Look through the next element, which is a matrix."""
        if depth > _DEPTH:
            raise self.fault(f"nested deeper than {_DEPTH} levels")
        kind, part = self.element(frame)
        if kind != _MATRIX:
            raise self.fault(f"an element of type {kind} where a matrix is expected")
        if part.end > part.at:
            kind, count, _, flags = self.head(part)
            self.content(part, kind, count, flags, depth)
            frame.at = part.at

    def content(self, frame: _Frame, kind: int, count: int, flags: int, depth: int) -> None:
        """Look through what follows a matrix's head."""
        if kind in _ITEMS:
            for _ in range(2 if flags & 0x800 else 1):
                stored, part = self.values(frame)
                if (part.end - part.at) // _SIZES[stored] != count:
                    raise self.fault(f"an array of {count} numbers holds {part.end - part.at} bytes")
            self.take(count * _ITEMS[kind])
        elif kind == _CHAR:
            stored, part = self.values(frame)
            if (part.end - part.at) // _SIZES[stored] < count:
                raise self.fault(f"a text of {count} characters holds {part.end - part.at} bytes")
            self.take(4 * count)
        elif kind == _CELL:
            self.many(frame, count, depth)
        elif kind in (_STRUCT, _OBJECT):
            if kind == _OBJECT:
                self.text(frame)
            _, part = self.values(frame, (5,))
            if part.end - part.at != 4:
                raise self.fault("field names of no stated length")
            (length,) = Struct(f"{self.order}i").unpack_from(part.data, part.at)
            written = self.text(frame)
            if not 0 < length <= 4096 or len(written) % length:
                raise self.fault(f"field names of {length} bytes")
            self.many(frame, count * (len(written) // length), depth)
            self.take(8 * count)
        elif kind == _FUNCTION:
            self.matrix(frame, depth + 1)
        elif kind == _OPAQUE:
            for _ in range(3):
                self.text(frame)
            self.matrix(frame, depth + 1)
        else:
            raise self.fault(f"an array of class {kind}, which matRad's files do not have")

    def many(self, frame: _Frame, count: int, depth: int) -> None:
        if 8 * count > frame.end - frame.at:
            raise self.fault(f"{count} entries in {frame.end - frame.at} bytes")
        for _ in range(count):
            self.matrix(frame, depth + 1)
