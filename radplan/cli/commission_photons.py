"""The verb ``radplan commission photons``: a linac fitted to a water tank."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from radplan.cli.arguments import numbers
from radplan.cli.console import listening_console
from radplan.cli.plan import check_folder
from radplan.errors import InputError

Tank = Annotated[list[str], typer.Argument(metavar="TANK_DATA", help="PTW .mcc and .csv files, or folders of them.")]
Out = Annotated[
    str, typer.Option("--out", "--output", metavar="MACHINE", help="Folder for machine and report; names the machine.")
]
Energy = Annotated[float | None, typer.Option(metavar="MV", help="Which beam, where the files hold several energies.")]
Start = Annotated[
    str | None, typer.Option(metavar="NAME", help="Generic model to begin with (default: of the nearest energy).")
]
FactorsAt = Annotated[
    list[str] | None,
    typer.Option("--factors-at", metavar="SSD,DEPTH", help="Where output factors were measured (default 900,100 mm)."),
]
Incomplete = Annotated[
    bool, typer.Option("--incomplete", help="Go on without a depth dose and profiles in both directions.")
]
NoFigures = Annotated[bool, typer.Option("--no-figures", help="Write no png files.")]


def photons(
    tank: Tank,
    out: Out = "commissioned",
    energy: Energy = None,
    start: Start = None,
    factors_at: FactorsAt = None,
    incomplete: Incomplete = False,
    no_figures: NoFigures = False,
) -> int:
    """Fit a photon linac to depth doses, profiles and output factors measured in water.

    The folder gets the machine file, a report with residuals and what the data cannot tell, curves and a figure.
    """
    from radplan.io.staging import staged
    from radplan.viz import figures_available
    from radplan.workflows.commissioning import commission_photons, report_lines, save_commissioning

    check_folder(out)
    where = numbers(factors_at, "--factors-at") or [900.0, 100.0]
    if len(where) != 2:
        raise InputError(f"--factors-at takes surface distance and depth such as 900,100, got {len(where)} numbers")
    with listening_console() as console:
        fitted = commission_photons(list(tank), Path(out).name, energy, start, where[0], where[1], incomplete)
        with staged(out) as partial:
            paths = save_commissioning(fitted, partial)
            if not no_figures and figures_available():
                from radplan.viz.commissioning import save_commissioning_figure

                paths.append(save_commissioning_figure(fitted, partial))
        print("\n".join(report_lines(fitted)))
        print(f"\nin {Path(out).resolve()}: {', '.join(path.name for path in paths)}  [{console.total()}]")
    return 0
