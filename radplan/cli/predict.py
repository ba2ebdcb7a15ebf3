"""The verb ``radplan predict``: the dose that a trained network proposes for a patient."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from radplan.cli.arguments import DoseMask, Wished, spacing
from radplan.cli.console import show_warnings
from radplan.cli.plan import check_folder
from radplan.errors import InputError

if TYPE_CHECKING:
    from radplan.ai.dvh_planner import SteeredDose
    from radplan.plan import Plan


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's folder, openkbp-small or pelvis-dvh.")],
    case: Annotated[str, typer.Argument(metavar="CASE", help="OpenKBP patient, DICOM folder, matRad .mat file.")],
    grid: Annotated[
        list[str] | None, typer.Option(metavar="MM", help="Dose grid, one or x,y,z (default: the CT's voxels).")
    ] = None,
    mask: DoseMask = None,
    asked: Wished = None,
    device: Annotated[str, typer.Option(metavar="D", help="cpu, cuda or cuda:N.")] = "cpu",
    no_figures: Annotated[bool, typer.Option("--no-figures", help="Write no png files.")] = False,
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder for the results.")] = "out",
) -> int:
    """Propose a dose: metrics, DVHs and figures; a proposal is no plan (radplan mimic makes one)."""
    try:
        from radplan.ai.airt_planner import AirtPlanner
        from radplan.ai.aperture_planner import AperturePlanner
        from radplan.ai.dvh import Wish
        from radplan.ai.dvh_planner import DvhPlanner
        from radplan.ai.loading import load_model
    except ImportError as error:
        raise InputError(f"a network needs torch ({error}): pip install 'radplan[ai]'") from None
    from radplan.io.load import load_patient
    from radplan.io.openkbp import DOSE_MASK, is_openkbp, read_openkbp
    from radplan.io.save import save_plan
    from radplan.plan.of_dose import plan_of_dose
    from radplan.viz import figures_available, save_figures

    check_folder(out)
    show_warnings()
    changes = [Wish.parse(text) for text in asked or ()]
    network = load_model(model, device)
    if changes and not isinstance(network, DvhPlanner):
        raise InputError(f"the model {network.card['name']} is not steered by DVHs and takes no --wish: try pelvis-dvh")
    if isinstance(network, AirtPlanner | AperturePlanner):
        raise InputError(f"the model {network.card['name']} plans arcs: give it to radplan ai-plan")
    known = read_openkbp(case) if Path(case).exists() and is_openkbp(case) else None
    patient = load_patient(case) if known is None else known.patient
    steps = spacing(grid, "--grid")
    where = None if steps is None else patient.ct.grid.with_spacing(steps)
    counted = mask or (DOSE_MASK if DOSE_MASK in patient.structures else None)
    beside, label = None, "planned"
    if isinstance(network, DvhPlanner):
        patient = network.named(patient)
        result = network.steer(patient, changes, where, counted)
        dose, placed = result.dose, result.grid
        if changes:
            beside, label = (result.usual, placed), "without wishes"
            _tell_wishes(result)
    else:
        dose, placed = network.predict(patient, where, counted)
        if known is not None and known.dose.any():
            beside = known.dose, known.patient.ct.grid
    plan = plan_of_dose(dose, placed, patient, f"proposed by {network.card['name']}")
    paths = [*save_plan(plan, out)]
    if figures_available() and not no_figures:
        paths += save_figures(plan, out, beside=beside and plan_of_dose(*beside, patient).dvh(), label=label)
    _tell_doses(plan)
    print(f"in {Path(out).resolve()}: {', '.join(path.name for path in paths)}")
    return 0


def _tell_doses(plan: Plan) -> None:
    for name, values in plan.metrics(names=["Dmean", "D98", "D2"]).items():
        print(f"{name:14s} " + "  ".join(f"{key} {value:6.2f} Gy" for key, value in values.items()))


def _tell_wishes(result: SteeredDose) -> None:
    for name in result.asked:
        before, asked, reached = (result.mean(c, name) for c in (result.before, result.asked, result.reached))
        print(f"{name:14s} mean without wishes {before:6.2f}, asked {asked:6.2f}, reached {reached:6.2f} Gy")
