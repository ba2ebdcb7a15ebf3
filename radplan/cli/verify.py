"""The verb ``radplan verify``: a plan's dose beside an independent Monte Carlo."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radplan.cli.arguments import HuTable, Series, StructureSet, gamma_criteria, refuse, spacing
from radplan.cli.console import listening_console, print_table, show_warnings
from radplan.cli.plan import check_folder
from radplan.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from radplan.workflows.verification import Verification

Plan = Annotated[
    str,
    typer.Argument(metavar="PLAN", help="RTPLAN, RT Ion Plan of protons, or the folder of a proton plan of radplan."),
]
Patient = Annotated[
    str | None,
    typer.Option(metavar="P", help="Whose plan a DICOM file is: folder, or cylinder, box, tg119 to move it into."),
]
Engine = Annotated[str, typer.Option(metavar="E", help="monte_carlo: pyRadMC for photons, MCsquare for protons.")]
Program = Annotated[
    str | None, typer.Option(metavar="WHEEL", help="Of protons: opentps-core wheel that holds MCsquare, or its folder.")
]
Histories = Annotated[float | None, typer.Option(metavar="N", help="Primaries (default 1e7 photons, 1e6 protons).")]
Machine = Annotated[str | None, typer.Option(metavar="M", help="Built-in name or file (default: generic, by energy).")]
Mlc = Annotated[str | None, typer.Option(metavar="MLC", help="Collimator (default: the known one).")]
GridStep = Annotated[list[str] | None, typer.Option("--grid", metavar="MM", help="Grid spacing, one or x,y,z (3).")]
Fractions = Annotated[int | None, typer.Option(metavar="N", help="Number of fractions (default: the plan's).")]
Gamma = Annotated[list[str] | None, typer.Option(metavar="PERCENT,MM", help="Criteria (default 3,3).")]
Scaling = Annotated[
    bool | None,
    typer.Option(
        "--density-scaling/--no-density-scaling",
        help="Let radplan's kernel be wider where density is low (default: where lungs are contoured).",
    ),
]
Seed = Annotated[int, typer.Option(metavar="N", help="Of the random numbers.")]
Device = Annotated[str, typer.Option(metavar="D", help="Where the Monte Carlo runs: cpu or cuda:0.")]
Out = Annotated[str, typer.Option("--out", "--output", metavar="DIR", help="Folder for the results.")]
NoFigures = Annotated[bool, typer.Option("--no-figures", help="Write no png files.")]


def command(
    plan: Plan,
    patient: Patient = None,
    engine: Engine = "monte_carlo",
    program: Program = None,
    histories: Histories = None,
    machine: Machine = None,
    mlc: Mlc = None,
    grid: GridStep = None,
    fractions: Fractions = None,
    gamma: Gamma = None,
    density_scaling: Scaling = None,
    structure_set: StructureSet = None,
    series: Series = None,
    hu_table: HuTable = None,
    seed: Seed = 1,
    device: Device = "cpu",
    out: Out = "out",
    no_figures: NoFigures = False,
) -> int:
    """Put a plan's dose beside that of an independent Monte Carlo: gamma, DVHs, statistical error.

    Photons begin from the same fluence behind leaves and jaws, and both doses agree in the middle of a 10x10 in water.
    """
    from radplan.recalc import SceneOptions
    from radplan.workflows.verification import INDEPENDENT

    check_folder(out)
    if engine not in INDEPENDENT:
        raise UnknownNameError("engine to verify by", engine, INDEPENDENT)
    given = {
        "patient": patient,
        "machine": machine,
        "histories": None if histories is None else int(histories),
        "criteria": gamma_criteria(gamma, "--gamma"),
        "seed": seed,
        "grid": spacing(grid, "--grid") or 3.0,
        "scene": SceneOptions(structure_set=structure_set, series=series, hu_table=hu_table),
        "fractions": fractions,
    }
    given = {name: value for name, value in given.items() if value is not None}
    show_warnings(logging.ERROR)
    with listening_console() as console:
        if _is_of_protons(plan):
            of_photons = {"--mlc": mlc, "--density-scaling": density_scaling is not None, "--device": device != "cpu"}
            refuse("a plan of protons", of_photons)
            of_files = {"--grid": grid, "--fractions": fractions, "--series": series, "--hu-table": hu_table}
            refuse("a plan of radplan's own", of_files if Path(plan).is_dir() else {})
            verification = _of_protons(plan, program, given)
        else:
            refuse("a plan of photons", {"--program": program})
            verification = _of_photons(plan, mlc, density_scaling, device, given)
        paths = _written(verification, out, {"plan": Path(plan).name}, not no_figures)
        _tell(verification)
        print(f"\nin {Path(out).resolve()}: {', '.join(path.name for path in paths)}  [{console.total()}]")
    return 0


def _is_of_protons(plan: str) -> bool:
    from radplan.io.dicom import is_ion_plan

    return Path(plan).is_dir() or is_ion_plan(plan)


def _of_protons(plan: str, program: str | None, given: dict[str, Any]) -> Verification:
    """Return a proton plan beside MCsquare."""
    from radplan.workflows.verification import verify_protons

    if program is None:
        raise InputError(
            "a proton plan is verified by MCsquare: give --program WHEEL (pip download --no-deps opentps-core); a "
            "photon plan is verified from its RTPLAN, not from a folder"
        )
    return verify_protons(plan, program, **given)


def _of_photons(plan: str, mlc: str | None, scaling: bool | None, device: str, given: dict[str, Any]) -> Verification:
    from radplan.engines import ApertureOptions
    from radplan.workflows.verification import verify

    if "patient" not in given:
        raise InputError("give --patient P, whose plan the RTPLAN is")
    return verify(plan, mlc=mlc, options=ApertureOptions(density_scaling=scaling), device=device, **given)


def _written(verification: Verification, out: str, given: dict[str, object], figures: bool) -> list[Path]:
    from radplan.io.save import write_saved_dose
    from radplan.io.staging import staged
    from radplan.recalc import save_recalculation
    from radplan.viz import figures_available
    from radplan.workflows.verification import verification_data

    with staged(out) as partial:
        paths = (
            []
            if verification.recalculation is None
            else list(save_recalculation(verification.recalculation, partial, given))
        )
        if figures and figures_available():
            from radplan.viz.verification import save_verification_figures

            paths += save_verification_figures(verification, partial)
        simulated, fractions = verification.simulated, verification.plan.fractions
        course, error = fractions * simulated.dose, {"error": fractions * simulated.error}
        paths.append(write_saved_dose(partial / "monte_carlo.npz", course, simulated.grid, error))
        told = partial / "verification.json"
        told.write_text(json.dumps(dict(verification_data(verification)), indent=2) + "\n", encoding="utf-8")
        paths.append(told)
    return [Path(out, path.name) for path in paths]


def _tell(verification: Verification) -> None:
    """Print both doses, gamma and the statistical error."""
    comparison, simulated = verification.comparison, verification.simulated
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
    for name, share in verification.passing.items():
        print(f"gamma {comparison.gamma.criteria if comparison.gamma else ''}, {name}: {share:.2f} % pass")
    print(
        f"{simulated.told['program']}: {simulated.histories:.2g} primaries, {simulated.seconds:.0f} s of processor, "
        f"error {simulated.statistical_percent:.2f} % of the maximum"
    )
    if "d20_over_d10" in simulated.told:
        quality = simulated.told["d20_over_d10"]
        print(
            f"reference field: made to agree within {simulated.told['reference_error_percent']:.2f} %; D20/D10 "
            f"{quality['radplan']:.3f} and {quality['simulated']:.3f}"
        )
