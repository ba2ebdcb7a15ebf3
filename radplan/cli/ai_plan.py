"""The verb ``radplan ai-plan``: a deliverable plan from the dose that a trained network proposes."""

from __future__ import annotations

import logging
from typing import Annotated, Literal

import typer

from radplan.cli.arguments import spacing
from radplan.cli.console import listening_console
from radplan.cli.plan import check_folder
from radplan.errors import InputError


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's folder, or openkbp-small.")],
    case: Annotated[str, typer.Argument(metavar="CASE", help="OpenKBP patient, DICOM folder, matRad .mat file.")],
    technique: Annotated[
        Literal["sliding_window", "step_and_shoot"], typer.Option(help="How the leaves move.")
    ] = "sliding_window",
    machine: Annotated[str, typer.Option(metavar="M", help="Built-in name or file.")] = "generic_photon_6mv",
    limits: Annotated[str, typer.Option(metavar="LINAC", help="Whose limits the plan keeps.")] = "TrueBeam",
    bixel_width: Annotated[float, typer.Option(metavar="MM", help="Side of a bixel along the leaves.")] = 5.0,
    grid: Annotated[list[str] | None, typer.Option(metavar="MM", help="Dose grid, one or x,y,z (default 4).")] = None,
    collimator: Annotated[
        float | None, typer.Option(metavar="DEG", help="Collimator angle (default: 0 or 90, by the targets' shape).")
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Structure in which dose counts (default: OpenKBP's mask, or the body)."),
    ] = None,
    no_figures: Annotated[bool, typer.Option("--no-figures", help="Write no png files.")] = False,
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder for the results.")] = "out",
) -> int:
    """Propose a dose, reproduce it by leaves, export RTPLAN and RTDOSE, and tell what the file gives."""
    try:
        from radplan.ai.proposer import load_proposer
    except ImportError as error:
        raise InputError(f"a network needs torch ({error}): pip install 'radplan[ai]'") from None
    from radplan.ai.planning import plan_proposal
    from radplan.io.load import load_machine
    from radplan.io.openkbp import DOSE_MASK
    from radplan.io.plan_file.reading import plan_spec
    from radplan.machines.photon import PhotonMachine
    from radplan.viz import figures_available, save_figures
    from radplan.workflows.delivery import save_delivery
    from radplan.workflows.setup import named_patient

    proposer = load_proposer(model)
    live = load_machine(machine)
    if not isinstance(live, PhotonMachine):
        raise InputError(f"{machine} is no photon machine: networks that propose photon dose are planned with photons")
    check_folder(out)
    logging.basicConfig(format="radplan: %(levelname)s: %(message)s", level=logging.WARNING)
    with listening_console() as console:
        asked = {
            "case": case,
            "machine": machine,
            "beams": {"bixel_width": bixel_width},
            "engine": {"grid": spacing(grid, "--grid") or 4.0},
            "delivery": {"technique": technique, "limits": limits},
        }
        spec = plan_spec(asked)
        patient, source = named_patient(spec)
        counted = mask or (DOSE_MASK if DOSE_MASK in patient.structures else None)
        result = plan_proposal(proposer, spec, patient, live, source, counted, collimator=collimator)
        paths = save_delivery(result.delivered, out, spec, patient, source)
        if figures_available() and not no_figures:
            save_figures(result.delivered.plan, out, beside=result.mimicry.plan.dvh(), label="reproduced by fluence")
        print(result.table())
        gamma = result.mimicry.gamma
        print(f"gamma {gamma.criteria} between proposal and fluence: {gamma.passing:.1f} % pass")
        print(result.delivered.report)
        print(f"in {out}: {', '.join(path.name for path in paths)}  [{console.total()}]")
    return 0
