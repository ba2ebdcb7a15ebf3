"""The verb ``radplan dvh``: the dose-volume histogram of a plan, as metrics, a table or a figure."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radplan.cli.arguments import file_kind
from radplan.cli.console import print_metrics, show_warnings
from radplan.errors import InputError

if TYPE_CHECKING:
    from radplan.plan import Plan


FIGURES = (".png", ".pdf", ".svg")
"""Kinds of figures."""


def command(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="Folder of a plan.")],
    quantity: Annotated[
        str | None, typer.Option(metavar="Q", help="physical_dose, rbe_x_dose, let, ... (default the prescribed one).")
    ] = None,
    structures: Annotated[str | None, typer.Option(metavar="NAME,...", help="Which structures (default all).")] = None,
    metrics: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="D95, V20Gy, D0.1cc, ... (default the usual ones).")
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="The curves: .csv, .png, .pdf, .svg or .html (hover).")
    ] = None,
) -> int:
    """Show metrics of every structure and write its curves."""
    from radplan.workflows.reopening import load_plan

    if out is not None:
        file_kind(out, (".csv", *FIGURES, ".html"))
    show_warnings(logging.ERROR)
    opened = load_plan(plan)
    shown = quantity or opened.prescribed
    names = None if structures is None else [name for name in structures.split(",") if name]
    wanted = None if metrics is None else [name for name in metrics.split(",") if name]
    rows = opened.metrics(shown, names, wanted)
    print(f"{opened.title(shown)}, {opened.caption()}")
    targets = [name for name in rows if opened.patient.structures[name].role == "target"]
    for group in (targets, [name for name in rows if name not in targets]):
        if group:
            print_metrics({name: rows[name] for name in group}, opened.unit(shown))
    if out is not None:
        _write(Path(out), opened, shown, names)
        print(f"curves     {out}")
    return 0


def _write(path: Path, plan: Plan, quantity: str, structures: list[str] | None) -> None:
    """Write curves in the form that the file's name asks for, whole or not at all."""
    from radplan.io.save import write_dvh
    from radplan.io.staging import staged_file

    kind = path.suffix.lower()
    with staged_file(path) as partial:
        if kind == ".csv":
            write_dvh(partial, plan, quantity, structures)
        elif kind == ".html":
            from radplan.report.document import curve_page

            partial.write_text(curve_page(plan, quantity, structures), encoding="utf-8")
        else:
            write_figure(partial, kind, plan, quantity=quantity, structures=structures)


def write_figure(path: Path, kind: str, plan: Plan, **drawn: Any) -> None:
    """Draw the DVHs of a plan into a file of one of `FIGURES`, with what `radplan.viz.dvh.draw_dvh` takes.

    Raises
    ------
    InputError
        When matplotlib is not installed.
    """
    from radplan.viz import figures_available

    if not figures_available():
        raise InputError("figures need matplotlib, which is not installed: pip install 'radplan[viz]'")
    from radplan.viz.dvh import draw_dvh

    draw_dvh(plan, **drawn).savefig(path, dpi=150, format=kind[1:])
