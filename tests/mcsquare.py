"""A stand-in for MCsquare, which is not needed: it gives the image back as dose, turned as the program turns it."""

from __future__ import annotations

import stat
from pathlib import Path

COPY = """#!/bin/sh
grep -q "Num_Primaries" config.txt && grep -q "BDL.txt" config.txt || exit 3
cp CT.raw Outputs/Dose.raw
printf 'ObjectType = Image' > Outputs/Dose.mhd
"""


def program(folder: Path, script: str = COPY) -> Path:
    """Return a folder with a program of that text, as `unpacked` returns that of MCsquare."""
    (folder / "Materials").mkdir(exist_ok=True)
    binary = folder / "MCsquare_linux"
    binary.write_text(script)
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    return folder
