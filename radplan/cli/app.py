"""The verb ``radplan app``: planning in the browser, on this machine alone."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from radplan.errors import FileError, InputError


def command(
    case: Annotated[
        str | None, typer.Argument(metavar="CASE", help="Opened at once: tg119, box, or a folder or .mat file.")
    ] = None,
    folder: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="What the app may read and write (default the folder of CASE, else this one)."
        ),
    ] = None,
    port: Annotated[int, typer.Option(metavar="N", help="Port; 0 takes a free one.")] = 0,
) -> int:
    """Plan in the browser: open a case, edit goals, watch the plan grow, compare, steer, export.

    Listens on this machine alone, and lets in who has the token in the address. Plans are kept in DIR/radplan-plans.
    """
    from radplan.patient.phantoms import PHANTOMS

    missing = [name for name in ("panel", "bokeh", "jinja2") if find_spec(name) is None]
    if missing:
        raise InputError(f"the app needs {' and '.join(missing)}, not installed: pip install 'radplan[app]'")
    from radplan.app.serve import serve

    opened, root = case, Path(folder) if folder is not None else Path()
    if case is not None and case not in PHANTOMS:
        path = Path(case).resolve()
        if not path.exists():
            raise FileError(case, f"no such case; expected a folder, a .mat file, or one of {', '.join(PHANTOMS)}")
        root = path.parent if folder is None else root
        opened = str(path.relative_to(root.resolve())) if path.is_relative_to(root.resolve()) else case
    serve(root, opened, port)
    return 0
