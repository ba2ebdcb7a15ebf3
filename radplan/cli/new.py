"""The verb ``radplan new``: a plan file for a case, to begin with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from radplan.cli.console import show_warnings
from radplan.errors import FileError
from radplan.progress import listening


def command(
    case: Annotated[str, typer.Argument(metavar="CASE", help="A DICOM folder, a matRad .mat patient, tg119 or box.")],
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write there instead of printing; an existing file is kept.")
    ] = None,
) -> int:
    """Print a commented plan file for a case: structures found, a prescription guessed, goals to begin with.

    radplan new CASE > plan.yaml, then radplan plan --plan plan.yaml
    """
    from radplan.io.load import load_patient
    from radplan.workflows.writing import plan_text

    show_warnings()
    with listening(None if sys.stderr.isatty() else False):
        text = plan_text(case, load_patient(case))
    if out is None:
        sys.stdout.buffer.write(text.encode("utf-8"))
        sys.stdout.flush()
        return 0
    try:
        with Path(out).open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise FileError(out, "exists already: choose another name") from None
    except OSError as error:
        raise FileError(out, f"cannot be written ({error.strerror})") from None
    return 0
