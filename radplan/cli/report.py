"""The verb ``radplan report``: a plan's folder as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from radplan.cli.console import show_warnings


def command(
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="Folder of a plan.")],
    out: Annotated[
        str | None, typer.Option(metavar="FILE", help="The page (default report.html in the folder of the plan).")
    ] = None,
    card: Annotated[
        str | None, typer.Option(metavar="CARD", help="Scorecard file, or a protocol's name, to judge the plan by.")
    ] = None,
    patient: Annotated[
        str | None, typer.Option(metavar="CASE", help="Where the patient lies, if it has moved since.")
    ] = None,
    patient_name: Annotated[
        bool, typer.Option("--patient-name", help="Name the patient and the case; left out otherwise.")
    ] = False,
    title: Annotated[str, typer.Option(metavar="TEXT", help="What stands above the page.")] = "",
) -> int:
    """Write one self-contained HTML file: prescription, goals, DVHs, slices with isodoses, beams, provenance."""
    from radplan.autoplan.protocol import load_scorecard, understand
    from radplan.report.content import read_delivery, read_provenance
    from radplan.report.document import save_report
    from radplan.workflows.reopening import load_plan

    show_warnings()
    opened = load_plan(plan, patient)
    folder = Path(plan)
    judged, rules = (None, None) if card is None else load_scorecard(card)
    path = save_report(
        opened,
        folder / "report.html" if out is None else out,
        judged,
        read_delivery(folder),
        read_provenance(folder),
        patient_name,
        title,
        None if rules is None else understand(opened.patient, rules).patient,
    )
    print(f"report     {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0
