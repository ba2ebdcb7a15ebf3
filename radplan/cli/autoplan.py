"""The verb ``radplan autoplan``: contours in, the best-scored plan out, nobody in between."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from radplan.cli.console import listening_console
from radplan.cli.plan import check_folder
from radplan.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from radplan.autoplan.planner import AutoArcs
    from radplan.autoplan.refine import Iterate, Refinement
    from radplan.io.dicom import DicomCase

TECHNIQUES = ("fluence", "vmat")


def command(
    case: Annotated[str, typer.Argument(metavar="CASE", help="A DICOM folder, an OpenKBP patient, a .mat patient.")],
    protocol: Annotated[
        str, typer.Option(metavar="P", help="head_neck, lung, oesophagus, prostate, or a protocol file (JSON).")
    ],
    machine: Annotated[str | None, typer.Option(metavar="M", help="Built-in name or file (the protocol's).")] = None,
    technique: Annotated[
        str, typer.Option(metavar="T", help="fluence (fixed fields) or vmat (arcs, RTPLAN).")
    ] = "fluence",
    limits: Annotated[str, typer.Option(metavar="LINAC", help="Whose limits arcs keep.")] = "TrueBeam",
    rounds: Annotated[int, typer.Option(metavar="N", help="Most rounds of ascent on the card.")] = 6,
    device: Annotated[str, typer.Option(metavar="D", help="Where to calculate: numpy, torch:cuda:0, ...")] = "numpy",
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder for the results.")] = "out",
    no_figures: Annotated[bool, typer.Option("--no-figures", help="Write no png files.")] = False,
) -> int:
    """Plan a case by a protocol: names, helper structures, beams, rounds of planning until the score stops rising."""
    from radplan.autoplan.planner import auto_arcs, auto_plan
    from radplan.autoplan.protocol import load_protocol
    from radplan.autoplan.refine import Settings
    from radplan.io.load import load_machine
    from radplan.io.plan_file.reading import plan_spec
    from radplan.machines import PhotonMachine
    from radplan.machines.limits import machine_limits
    from radplan.workflows.setup import named_patient

    rules = load_protocol(protocol)
    live = load_machine(machine or rules.machine)
    if technique not in TECHNIQUES:
        raise UnknownNameError("technique", technique, TECHNIQUES)
    machine_limits(limits)
    if technique == "vmat" and not isinstance(live, PhotonMachine):
        raise InputError(f"vmat needs a photon machine, {live.name!r} is one of {live.radiation}")
    check_folder(out)
    logging.basicConfig(format="radplan: %(levelname)s: %(message)s", level=logging.WARNING)
    with listening_console() as console:
        patient, dicom = named_patient(plan_spec({"case": case}))
        refinement = auto_plan(patient, rules, live, Settings(ascents=rounds), device=device, progress=_tell_iterate)
        arcs = None
        if technique == "vmat" and isinstance(live, PhotonMachine):
            arcs = auto_arcs(refinement, rules, live, limits=limits, case=dicom)
        paths = _written(refinement, arcs, out, not no_figures, dicom, protocol)
        _tell(refinement, arcs)
        print(f"\nin {Path(out).resolve()}: {', '.join(path.name for path in paths)}  [{console.total()}]")
    return 0


def _tell_iterate(iterate: Iterate) -> None:
    """Print what one plan scored."""
    mark = "  best so far" if iterate.best else ""
    score = iterate.score
    name = iterate.policy.replace("_", " ")
    print(f"{name:<18} {score.total:8.2f} of {score.maximum:.0f}  [{iterate.seconds:.1f} s]{mark}", flush=True)


def _tell(refinement: Refinement, arcs: AutoArcs | None) -> None:
    """Print the scorecard of the first and of the best plan, and of the arcs."""
    for note in refinement.notes:
        print(f"note: {note}")
    print(f"\nfirst plan\n{refinement.iterates[0].score.table()}")
    print(f"\nbest plan ({refinement.reason})\n{refinement.best.score.table()}")
    print(f"gained {refinement.gain:.1f} % of the card's maximum")
    if arcs is not None:
        report = arcs.delivered.report
        print(f"\narcs, dose of the exported file\n{arcs.score.table()}")
        limits = arcs.delivered.limits.name
        print(f"{report.mu:.0f} MU, {report.beam_on:.0f} s of beam, {len(list(report))} violations of {limits}")


def _written(
    refinement: Refinement, arcs: AutoArcs | None, out: str, figures: bool, case: DicomCase | None, protocol: str
) -> list[Path]:
    """Plan, iterates, scores and figures, all or none."""
    from radplan.autoplan.planner import arc_specification
    from radplan.autoplan.protocol import load_protocol
    from radplan.io.save import save_plan
    from radplan.io.staging import staged
    from radplan.viz import figures_available, save_figures
    from radplan.workflows.delivery import save_delivery

    with staged(out) as partial:
        save_plan(refinement.plan, partial, provenance={"protocol": Path(protocol).name}, case=case)
        scores = {"first": refinement.iterates[0].score.to_spec(), "best": refinement.best.score.to_spec()}
        text = json.dumps(refinement.to_spec(), indent=1) + "\n"
        (partial / "refinement.json").write_text(text, encoding="utf-8")
        if arcs is not None:
            scores["arcs"] = arcs.score.to_spec()
            spec = arc_specification(load_protocol(protocol))
            save_delivery(arcs.delivered, partial, spec, refinement.plan.patient, case)
        text = json.dumps(scores, indent=1) + "\n"
        (partial / "scorecard.json").write_text(text, encoding="utf-8")
        if figures and figures_available():
            from radplan.viz.refinement import save_refinement_figure

            save_figures(refinement.plan, partial, beside=refinement.first.dvh(), label="first plan")
            maximum = refinement.best.score.maximum
            names = [iterate.policy for iterate in refinement.iterates]
            save_refinement_figure(refinement.curve(), names, maximum, partial / "refinement.png")
        names_written = sorted(path.name for path in partial.iterdir())
    return [Path(out) / name for name in names_written]
