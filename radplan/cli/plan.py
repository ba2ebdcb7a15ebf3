"""The verb ``radplan plan``: from a case to a folder with its plan."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radplan.cli.arguments import (
    Arcs,
    BixelWidth,
    HuTable,
    LayerSpacing,
    Limits,
    Series,
    StructureSet,
    Technique,
    numbers,
)
from radplan.cli.console import Console, listening_console, print_metrics, print_table, show_warnings
from radplan.errors import FileError, InputError

if TYPE_CHECKING:
    from radplan.io.plan_file.reading import PlanSpec
    from radplan.plan import Plan
    from radplan.workflows.delivery import Delivered
    from radplan.workflows.planning import Outcome

Numbers = list[str] | None
Case = Annotated[
    str | None, typer.Argument(metavar="CASE", help="A DICOM folder, a matRad .mat patient, tg119 or box.")
]
PlanFile = Annotated[
    str | None, typer.Option(metavar="FILE", help="Plan file (YAML or JSON), or the plan.json of an earlier plan.")
]


def command(
    case: Case = None,
    plan: PlanFile = None,
    machine: Annotated[
        str | None, typer.Option(metavar="M", help="Built-in name or file (default generic_photon_6mv).")
    ] = None,
    gantry: Annotated[
        Numbers, typer.Option(metavar="DEG,...", help="Gantry angles (default 0,40,...,320; particles 90,270).")
    ] = None,
    couch: Annotated[
        Numbers, typer.Option(metavar="DEG,...", help="Couch angles, one for all or one per beam.")
    ] = None,
    bixel_width: BixelWidth = None,
    layer_spacing: LayerSpacing = None,
    structure_set: StructureSet = None,
    series: Series = None,
    hu_table: HuTable = None,
    biology: Annotated[
        str | None, typer.Option(metavar="RBE", help="RBE model of particles (default 1.1; tables of ions).")
    ] = None,
    grid: Annotated[Numbers, typer.Option(metavar="MM", help="Dose grid spacing, one or x,y,z (default 5).")] = None,
    fractions: Annotated[
        int | None, typer.Option(metavar="N", help="Number of fractions (default: the patient's).")
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="D", help="Where to calculate: numpy, torch:cpu, torch:cuda:0, ...")
    ] = None,
    technique: Technique = None,
    arcs: Arcs = None,
    limits: Limits = None,
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder for the results.")] = "out",
    dicom: Annotated[bool, typer.Option("--dicom", help="Write an RTDOSE (DICOM cases get one anyway).")] = False,
    no_figures: Annotated[bool, typer.Option("--no-figures", help="Write no png files.")] = False,
) -> int:
    """Plan a case. What the command line says wins over the plan file, which wins over the defaults.

    Ctrl-C while optimising keeps the best weights so far; anywhere else it leaves nothing behind.
    """
    given = {
        ("case",): case,
        ("machine",): machine,
        ("fractions",): fractions,
        ("beams", "gantry"): numbers(gantry, "--gantry"),
        ("beams", "couch"): _one_or_all(numbers(couch, "--couch")),
        ("beams", "bixel_width"): bixel_width,
        ("beams", "layer_spacing"): layer_spacing,
        ("dicom", "structure_set"): structure_set,
        ("dicom", "series"): series,
        ("hu_table",): hu_table,
        ("biology",): biology,
        ("engine", "grid"): _one_or_all(numbers(grid, "--grid")),
        ("engine", "device"): device,
        ("outputs", "dicom"): dicom or None,
        ("delivery", "technique"): technique,
        ("delivery", "arcs"): arcs,
        ("delivery", "limits"): limits,
    }
    spec = specification(plan, given)
    check_folder(out)
    show_warnings()
    return _planned(spec, out, spec.outputs.figures and not no_figures)


def specification(plan_file: str | None, given: Mapping[tuple[str, ...], Any]) -> PlanSpec:
    """Return what a plan file and the command line ask for together; the command line wins.

    Raises
    ------
    InputError
        When neither names a case, or a value does not fit.
    """
    from radplan.io.plan_file.reading import PlanSpec, plan_spec, read_plan_file

    data = (PlanSpec() if plan_file is None else read_plan_file(plan_file)).model_dump(exclude_unset=True)
    for keys, value in given.items():
        if value is None:
            continue
        section = data
        for key in keys[:-1]:
            section = section.setdefault(key, {})
        section[keys[-1]] = value
    if given.get(("beams", "bixel_width")) is not None:
        data["beams"].pop("spot_spacing", None)
    spec = plan_spec(data)
    if spec.case is None:
        raise InputError(
            "name a CASE to plan: a DICOM folder, a matRad .mat file, tg119, box, or `case:` in the plan file"
        )
    return spec


def check_folder(out: str) -> None:
    """Refuse a folder that cannot be written before any work is done.

    Raises
    ------
    FileError
        When it is a file, or may not be written to.
    """
    nearest = next(p for p in (Path(out), *Path(out).absolute().parents) if p.exists())
    if not nearest.is_dir():
        raise FileError(nearest, "is a file; --out names the folder for the results")
    if not os.access(nearest, os.W_OK):
        raise FileError(nearest, "is a folder you may not write to; choose another with --out")


def _planned(spec: PlanSpec, out: str, figures: bool) -> int:
    """Plan, write, then tell; returns 130 when the search was interrupted."""
    from radplan.viz import figures_available
    from radplan.workflows.planning import run

    with listening_console() as console:
        outcome = run(spec)
        paths = _written(outcome, out, figures and figures_available())
        _tell_metrics(outcome.plan, spec)
        if outcome.delivered is not None:
            _tell_delivery(outcome.delivered)
        _tell_files(console, paths, out, figures and not figures_available())
    return 130 if outcome.interrupted else 0


def _written(outcome: Outcome, out: str, figures: bool) -> list[Path]:
    """Files and figures, all or none."""
    from radplan.io.staging import staged
    from radplan.viz import save_figures
    from radplan.viz.delivery import save_delivery_figures
    from radplan.workflows.planning import curves_beside

    beside = outcome.spec.outputs.beside
    with staged(out) as partial:
        paths = list(outcome.save(partial))
        if figures:
            curves = curves_beside(outcome.spec)
            paths += save_figures(outcome.plan, partial, beside=curves, label="" if beside is None else beside.label)
            if outcome.delivered is not None:
                paths += save_delivery_figures(outcome.delivered.delivery, outcome.delivered.limits, partial)
    return [Path(out, path.name) for path in paths]


def _tell_delivery(delivered: Delivered) -> None:
    """Tell the monitor units, and the three doses beside each other; the report was told when the step was done."""
    print(f"MU per Gy: {delivered.described()['mu_per_gray']:.0f}")
    table = delivered.table()
    for name in next(iter(table.values())):
        print()
        print_table({label: rows[name] for label, rows in table.items() if name in rows}, f"{name} [Gy]")
    if delivered.agreement is not None:
        found = delivered.agreement
        print(
            f"\nexact engine over apertures {found.factor:.3f}; then Dice of 50 % {found.dice_50:.3f}, of 95 % "
            f"{found.dice_95:.3f}, mean difference {found.mean_difference:.2f} %, gamma 3 %/3 mm {found.gamma:.1f} %"
        )
        pairs = {name: {"apertures": one, "exact": two} for name, (one, two) in found.d10.items()}
        print("\nD10 on the same voxels after that factor")
        print_table(pairs, "[Gy]")


def _tell_files(console: Console, paths: list[Path], out: str, undrawn: bool) -> None:
    if undrawn:
        print("figures    none: matplotlib is not installed (pip install 'radplan[viz]')")
    console.done("files", ", ".join(path.name for path in paths))
    print(f"\nThe plan lies in {Path(out).resolve()}  [{console.total()}]")


def _tell_metrics(plan: Plan, spec: PlanSpec) -> None:
    """One table for targets and one for the rest, of every quantity that the plan tells of."""
    from radplan.io.describe import judged

    for quantity in plan.told(spec.outputs.quantities):
        rows = judged(plan, spec.metrics, quantity)
        print(f"\n{plan.title(quantity)}, {plan.fractions} fractions, {plan.normalization or 'as optimised'}")
        targets = [name for name in rows if plan.patient.structures[name].role == "target"]
        for names in (targets, [name for name in rows if name not in targets]):
            if names:
                print_metrics({name: rows[name] for name in names}, plan.unit(quantity))
    print(flush=True)


def _one_or_all(values: list[float] | None) -> float | list[float] | None:
    return values[0] if values is not None and len(values) == 1 else values
