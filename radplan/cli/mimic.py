"""The verb ``radplan mimic``: a plan that reproduces a given dose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from radplan.cli.arguments import numbers, spacing
from radplan.cli.console import listening_console, show_warnings
from radplan.cli.plan import check_folder


def command(
    dose: Annotated[
        str, typer.Argument(metavar="DOSE", help="An RTDOSE or NRRD dose, an OpenKBP patient, or a plan's folder.")
    ],
    patient: Annotated[
        str | None, typer.Argument(metavar="CASE", help="Whose dose it is; a plan's folder knows its own.")
    ] = None,
    machine: Annotated[str, typer.Option(metavar="M", help="Built-in name or file.")] = "generic_photon_6mv",
    gantry: Annotated[
        list[str] | None, typer.Option(metavar="DEG,...", help="Gantry angles (default 0,40,...,320).")
    ] = None,
    bixel_width: Annotated[float, typer.Option(metavar="MM", help="Side of a bixel.")] = 7.5,
    grid: Annotated[list[str] | None, typer.Option(metavar="MM", help="Dose grid, one or x,y,z (default 5).")] = None,
    targets: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Targets, where both sides count (the patient's).")
    ] = None,
    fractions: Annotated[int, typer.Option(metavar="N", help="Number of fractions.")] = 30,
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder for the results.")] = "out",
) -> int:
    """Make a plan that reproduces a dose, and tell how near it comes."""
    from radplan.autoplan.mimic import plan_from_dose
    from radplan.beams import place_beams
    from radplan.engines import dose_influence
    from radplan.io.load import load_machine
    from radplan.io.save import save_plan
    from radplan.workflows.doses import given_dose

    live = load_machine(machine)
    check_folder(out)
    show_warnings(numbers=False)
    with listening_console() as console:
        given = given_dose(dose, patient)
        angles = numbers(gantry, "--gantry") or list(range(0, 360, 40))
        names = None if not targets else [name for text in targets for name in text.split(",")]
        beams = place_beams(given.patient, live, gantry=angles, bixel_width=bixel_width, targets=names)
        dij = dose_influence(given.patient, beams, live, grid=spacing(grid, "--grid") or 5.0)
        reproduction = plan_from_dose(
            given.dose, given.grid, dij, given.patient, fractions, targets=names, known=given.known
        )
        paths = save_plan(reproduction.plan, out)
        print(reproduction.table())
        print(f"\nin {Path(out).resolve()}: {', '.join(path.name for path in paths)}  [{console.total()}]")
    return 0
