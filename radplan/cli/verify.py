"""The verb ``radplan verify``: a plan's dose beside an independent Monte Carlo."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from radplan.cli.arguments import HuTable, Series, StructureSet, numbers, spacing
from radplan.cli.console import listening_console, print_table
from radplan.cli.plan import check_folder
from radplan.errors import InputError

if TYPE_CHECKING:
    from radplan.workflows.verification import Verification

Plan = Annotated[str, typer.Argument(metavar="RTPLAN", help="The photon plan: static fields, sliding windows, arcs.")]
Patient = Annotated[str, typer.Option(metavar="P", help="DICOM folder, or cylinder, box, tg119 to move the plan into.")]
Engine = Annotated[str, typer.Option(metavar="E", help="monte_carlo: pyRadMC (pip install 'radplan[mc]').")]
Histories = Annotated[float, typer.Option(metavar="N", help="Photons to simulate.")]
Machine = Annotated[str | None, typer.Option(metavar="M", help="Built-in name or file (default: generic, by energy).")]
Mlc = Annotated[str | None, typer.Option(metavar="MLC", help="Collimator (default: the known one).")]
GridStep = Annotated[list[str] | None, typer.Option("--grid", metavar="MM", help="Grid spacing, one or x,y,z (3).")]
Fractions = Annotated[int | None, typer.Option(metavar="N", help="Number of fractions (default: the plan's).")]
Gamma = Annotated[list[str] | None, typer.Option(metavar="PERCENT,MM", help="Criteria (default 3,3).")]
Scaling = Annotated[bool, typer.Option("--density-scaling", help="Let radplan's kernel be wider where density is low.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Of the random numbers.")]
Device = Annotated[str, typer.Option(metavar="D", help="Where the Monte Carlo runs: cpu or cuda:0.")]
Out = Annotated[str, typer.Option("--out", "--output", metavar="DIR", help="Folder for the results.")]
NoFigures = Annotated[bool, typer.Option("--no-figures", help="Write no png files.")]


def command(
    rtplan: Plan,
    patient: Patient,
    engine: Engine = "monte_carlo",
    histories: Histories = 1e7,
    machine: Machine = None,
    mlc: Mlc = None,
    grid: GridStep = None,
    fractions: Fractions = None,
    gamma: Gamma = None,
    density_scaling: Scaling = False,
    structure_set: StructureSet = None,
    series: Series = None,
    hu_table: HuTable = None,
    seed: Seed = 1,
    device: Device = "cpu",
    out: Out = "out",
    no_figures: NoFigures = False,
) -> int:
    """Put a plan's dose beside that of an independent Monte Carlo: gamma, DVHs, statistical error.

    Both begin from the same fluence behind leaves and jaws and agree in the middle of a 10x10 in water.
    """
    from radplan.analysis.gamma import GammaCriteria
    from radplan.engines import ApertureOptions
    from radplan.recalc import SceneOptions
    from radplan.workflows.verification import verify

    check_folder(out)
    given = numbers(gamma, "--gamma") or [3.0, 3.0]
    if len(given) != 2:
        raise InputError(f"--gamma takes percent and mm, as in --gamma 3,3; got {len(given)} numbers")
    logging.basicConfig(format="radplan: %(levelname)s: %(message)s", level=logging.ERROR)
    with listening_console() as console:
        found = verify(
            rtplan,
            patient,
            engine,
            int(histories),
            machine,
            mlc,
            spacing(grid, "--grid") or 3.0,
            ApertureOptions(density_scaling=density_scaling),
            GammaCriteria(given[0], given[1]),
            SceneOptions(structure_set=structure_set, series=series, hu_table=hu_table),
            fractions,
            seed,
            device,
        )
        paths = _written(found, out, {"rtplan": Path(rtplan).name}, not no_figures)
        _tell(found)
        print(f"\nin {Path(out).resolve()}: {', '.join(path.name for path in paths)}  [{console.total()}]")
    return 0


def _written(found: Verification, out: str, given: dict[str, object], figures: bool) -> list[Path]:
    from radplan.io.staging import staged
    from radplan.recalc import save_recalculation
    from radplan.viz import figures_available
    from radplan.workflows.verification import verification_data

    with staged(out) as partial:
        paths = list(save_recalculation(found.recalculation, partial, given))
        if figures and figures_available():
            from radplan.viz.recalc import save_recalculation_figures

            paths += save_recalculation_figures(found.recalculation, partial)
        told = partial / "verification.json"
        told.write_text(json.dumps(dict(verification_data(found)), indent=2) + "\n", encoding="utf-8")
        paths.append(told)
    return [Path(out, path.name) for path in paths]


def _tell(found: Verification) -> None:
    """Print both doses, gamma and the statistical error."""
    comparison, simulated = found.recalculation.comparison, found.simulated
    assert comparison is not None
    print_table(
        {
            row.structure: {
                "Dmean": row.ours["Dmean"],
                "MC": row.reference["Dmean"],
                "diff": row.difference("Dmean"),
                "D95": row.ours["D95"],
                "D95 MC": row.reference["D95"],
                "D2": row.ours["D2"],
                "D2 MC": row.reference["D2"],
            }
            for row in comparison.rows
        },
        "[Gy]",
    )
    for name, share in found.passing.items():
        print(f"gamma {comparison.gamma.criteria if comparison.gamma else ''}, {name}: {share:.2f} % pass")
    quality = simulated.told["d20_over_d10"]
    print(
        f"{simulated.told['program']}: {simulated.histories:.2g} photons, {simulated.seconds:.0f} s of processor time, "
        f"statistical error {simulated.statistical_percent:.2f} % of the maximum; reference field "
        f"{simulated.told['reference_error_percent']:.2f} %, D20/D10 {quality['radplan']:.3f} and "
        f"{quality['simulated']:.3f}"
    )
