"""The verb ``radplan compare``: the metrics of plans beside each other."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from radplan.cli.arguments import file_kind
from radplan.cli.console import print_metrics, show_warnings
from radplan.cli.dvh import FIGURES, write_figure
from radplan.errors import InputError


def command(
    plans: Annotated[list[str], typer.Argument(metavar="PLAN...", help="Folders of two plans or more.")],
    metrics: Annotated[
        str, typer.Option(metavar="NAME,...", help="What to read of every structure.")
    ] = "Dmean,D98,D50,D2",
    out: Annotated[str | None, typer.Option(metavar="FILE", help="The DVHs of two plans: .png, .pdf or .svg.")] = None,
) -> int:
    """Show metrics of several plans beside each other, and the DVHs of two in one figure."""
    from radplan.io.staging import staged_file
    from radplan.workflows.reopening import load_plan

    if len(plans) < 2:
        raise InputError("compare takes the folders of two plans or more")
    kind = "" if out is None else file_kind(out, FIGURES)
    show_warnings(logging.ERROR)
    names = [name for name in metrics.split(",") if name]
    opened = {Path(folder).name: load_plan(folder) for folder in plans}
    if len(opened) < len(plans):
        raise InputError("two of the folders have one name; rename one of them")
    tables = {label: plan.metrics(plan.prescribed, names=names) for label, plan in opened.items()}
    rows = {
        f"{structure} {label}": table[structure]
        for structure in next(iter(tables.values()))
        for label, table in tables.items()
        if structure in table
    }
    print_metrics(rows, "Gy", name=36)
    if out is not None:
        (_, first), (label, second), *_ = opened.items()
        with staged_file(Path(out)) as partial:
            write_figure(partial, kind, first, beside=second.dvh(), label=label)
        print(f"DVHs in {out}")
    return 0
