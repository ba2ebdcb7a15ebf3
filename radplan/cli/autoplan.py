"""The verb ``radplan autoplan``: contours in, the best-scored plan out, nobody in between."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from radplan.cli.console import listening_console, show_warnings
from radplan.cli.plan import check_folder
from radplan.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from radplan.autoplan.planner import AutoDelivery
    from radplan.autoplan.refine import Iterate, Refinement
    from radplan.engines.base import Machine
    from radplan.io.dicom import DicomCase
    from radplan.machines import PhotonMachine
    from radplan.plan import Plan
    from radplan.workflows.delivery import Delivered

TECHNIQUES = ("fluence", "step_and_shoot", "sliding_window", "vmat")


def command(
    case: Annotated[str, typer.Argument(metavar="CASE", help="A DICOM folder, an OpenKBP patient, a .mat patient.")],
    protocol: Annotated[
        str, typer.Option(metavar="P", help="head_neck, lung, oesophagus, prostate, or a protocol file (JSON).")
    ],
    machine: Annotated[str | None, typer.Option(metavar="M", help="Built-in name or file (the protocol's).")] = None,
    technique: Annotated[
        str | None,
        typer.Option(
            metavar="T", help="step_and_shoot (photons' default), sliding_window, vmat: RTPLAN; fluence: none."
        ),
    ] = None,
    limits: Annotated[str, typer.Option(metavar="LINAC", help="Whose limits leaves and arcs keep.")] = "TrueBeam",
    rounds: Annotated[int, typer.Option(metavar="N", help="Most rounds of ascent on the card.")] = 6,
    intermediate_doses: Annotated[
        int, typer.Option(metavar="N", min=0, help="Most intermediate doses of sliding windows; 0 sequences only.")
    ] = 4,
    device: Annotated[str, typer.Option(metavar="D", help="Where to calculate: numpy, torch:cuda:0, ...")] = "numpy",
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder for the results.")] = "out",
    no_figures: Annotated[bool, typer.Option("--no-figures", help="Write no png files.")] = False,
) -> int:
    """Plan a case by a protocol: names, helper structures, beams, rounds of planning until the score stops rising."""
    from radplan.autoplan.planner import auto_delivery, auto_plan
    from radplan.autoplan.protocol import load_protocol
    from radplan.autoplan.refine import Settings
    from radplan.io.load import load_machine
    from radplan.io.plan_file.reading import plan_spec
    from radplan.machines.limits import machine_limits
    from radplan.workflows.setup import named_patient

    rules = load_protocol(protocol)
    live = load_machine(machine or rules.machine)
    linac = _linac(live)
    chosen = technique or ("fluence" if linac is None else "step_and_shoot")
    if chosen not in TECHNIQUES:
        raise UnknownNameError("technique", chosen, TECHNIQUES)
    machine_limits(limits)
    if chosen != "fluence" and linac is None:
        raise InputError(f"{chosen} needs a photon machine with monitor units, {live.name!r} is none: take fluence")
    check_folder(out)
    show_warnings(numbers=False)
    with listening_console() as console:
        patient, dicom = named_patient(plan_spec({"case": case}))
        leaves = limits if chosen in ("step_and_shoot", "sliding_window") else None
        settings = Settings(ascents=rounds)
        refinement = auto_plan(patient, rules, live, settings, device, _tell_iterate, leaves)
        delivery = None
        if linac is not None and chosen != "fluence":
            delivery = auto_delivery(
                refinement, rules, linac, chosen, limits, case=dicom, intermediate_doses=intermediate_doses
            )
        paths = _written(refinement, delivery, out, not no_figures, dicom, protocol)
        _tell(refinement, delivery)
        print(f"\nin {Path(out).resolve()}: {', '.join(path.name for path in paths)}  [{console.total()}]")
    return 0


def _linac(machine: Machine) -> PhotonMachine | None:
    """Return a machine where it can deliver monitor units of photons, else None."""
    from radplan.machines import PhotonMachine

    return machine if isinstance(machine, PhotonMachine) and machine.reference is not None else None


def _tell_iterate(iterate: Iterate) -> None:
    """Print what one plan scored."""
    mark = "  best so far" if iterate.best else ""
    score = iterate.score
    name = iterate.policy.replace("_", " ")
    print(f"{name:<18} {score.total:8.2f} of {score.maximum:.0f}  [{iterate.seconds:.1f} s]{mark}", flush=True)


def _tell(refinement: Refinement, delivery: AutoDelivery | None) -> None:
    """Print the scorecard of the first plan, of the best and of what is delivered, beside each other."""
    from radplan.autoplan.scorecard import score_table

    for note in refinement.notes:
        print(f"note: {note}")
    best = refinement.best.score
    scores = {"first plan": refinement.iterates[0].score, "best plan": best}
    if delivery is not None:
        scores = {"first fluence": refinement.iterates[0].score, "best fluence": best, "exported file": delivery.score}
    print(f"\n{score_table(scores)}\n\nthe search ended: {refinement.reason}")
    print(f"gained {refinement.gain:.1f} % of the card's maximum")
    if delivery is not None:
        report = delivery.delivered.report
        technique = delivery.spec.delivery.technique.replace("_", " ")
        limits = delivery.delivered.limits.name
        print(
            f"{technique}: {delivery.score.total:.2f} points from the exported file, {best.total:.2f} by the fluence; "
            f"{report.mu:.0f} MU, {report.beam_on:.0f} s of beam, {len(list(report))} violations of {limits}"
        )


def _written(
    refinement: Refinement,
    delivery: AutoDelivery | None,
    out: str,
    figures: bool,
    case: DicomCase | None,
    protocol: str,
) -> list[Path]:
    """Plan, iterates, scores and figures, all or none."""
    from radplan.io.save import save_plan
    from radplan.io.staging import staged
    from radplan.viz import figures_available, save_figures
    from radplan.workflows.delivery import save_delivery

    with staged(out) as partial:
        save_plan(refinement.plan, partial, provenance={"protocol": Path(protocol).name}, case=case)
        scores = {"first": refinement.iterates[0].score.to_spec(), "best": refinement.best.score.to_spec()}
        record = refinement.to_spec()
        if delivery is not None:
            record["delivered"] = [iterate.to_spec() for iterate in delivery.iterates]
        text = json.dumps(record, indent=1) + "\n"
        (partial / "refinement.json").write_text(text, encoding="utf-8")
        if delivery is not None:
            scores["delivered"] = delivery.score.to_spec()
            save_delivery(delivery.delivered, partial, delivery.spec, refinement.plan.patient, case)
        text = json.dumps(scores, indent=1) + "\n"
        (partial / "scorecard.json").write_text(text, encoding="utf-8")
        if figures and figures_available():
            from radplan.viz.refinement import save_refinement_figure

            save_figures(refinement.plan, partial, beside=refinement.first.dvh(), label="first plan")
            maximum = refinement.best.score.maximum
            names = [iterate.policy for iterate in refinement.iterates]
            delivered = [] if delivery is None else [iterate.score.total for iterate in delivery.iterates]
            save_refinement_figure(refinement.curve(), names, maximum, partial / "refinement.png", delivered)
            if delivery is not None:
                _save_delivered_figures(delivery.delivered, refinement.plan, partial)
        names_written = sorted(path.name for path in partial.iterdir())
    return [Path(out) / name for name in names_written]


def _save_delivered_figures(delivered: Delivered, fluence: Plan, folder: Path) -> None:
    """Draw the dose of the exported file beside the fluence's, and what leaves and dose rate do."""
    from radplan.viz.canvas import save_png
    from radplan.viz.delivery import save_delivery_figures
    from radplan.viz.dvh import draw_dvh
    from radplan.viz.slices import draw_slices

    arcs = any(field.technique == "arc" for field in delivered.delivery.fields)
    plan = delivered.plan if arcs else replace(delivered.plan, given_beams=fluence.beams)
    save_png(draw_dvh(plan, beside=fluence.dvh(), label="fluence"), folder / "delivered_dvh.png")
    save_png(draw_slices(plan), folder / "delivered_slices.png")
    save_delivery_figures(delivered.delivery, delivered.limits, folder)
