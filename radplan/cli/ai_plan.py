"""The verb ``radplan ai-plan``: a deliverable plan from the dose that a trained network proposes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from radplan.cli.arguments import DoseMask, Wished, pairs, spacing
from radplan.cli.console import listening_console, show_warnings
from radplan.cli.plan import check_folder
from radplan.errors import InputError

if TYPE_CHECKING:
    from radplan.engines.base import Machine
    from radplan.io.plan_file.reading import PlanSpec
    from radplan.machines.photon import PhotonMachine
    from radplan.patient import Patient
    from radplan.workflows.delivery import Delivered


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's folder, or one that ships.")],
    case: Annotated[str, typer.Argument(metavar="CASE", help="OpenKBP patient, DICOM folder, matRad .mat file.")],
    technique: Annotated[
        Literal["sliding_window", "step_and_shoot", "vmat"] | None,
        typer.Option(help="How the leaves move (default: sliding_window, or vmat where the model plans arcs)."),
    ] = None,
    machine: Annotated[str, typer.Option(metavar="M", help="Built-in name or file.")] = "generic_photon_6mv",
    limits: Annotated[
        str | None,
        typer.Option(metavar="LINAC", help="Whose limits the plan keeps (default: TrueBeam, or the model's)."),
    ] = None,
    bixel_width: Annotated[
        float | None, typer.Option(metavar="MM", help="Side of a field's bixel along the leaves (default 5).")
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(metavar="MM", help="Dose grid, one or x,y,z (default 4; of arcs one, default 3)."),
    ] = None,
    collimator: Annotated[
        float | None, typer.Option(metavar="DEG", help="Collimator angle (default: 0 or 90, by the targets' shape).")
    ] = None,
    mask: DoseMask = None,
    asked: Wished = None,
    spare: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=10%", help="Ask an organ to get less."),
    ] = None,
    no_figures: Annotated[bool, typer.Option("--no-figures", help="Write no png files.")] = False,
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder for the results.")] = "out",
) -> int:
    """Propose a dose or an arc, make leaves of it, export RTPLAN and RTDOSE, and tell what the file gives."""
    try:
        from radplan.ai.loading import load_model
    except ImportError as error:
        raise InputError(f"a network needs torch ({error}): pip install 'radplan[ai]'") from None
    from radplan.io.load import load_machine
    from radplan.io.plan_file.reading import plan_spec
    from radplan.workflows.setup import named_patient

    network = load_model(model)
    arcs, taken, linac = _kind(network)
    options = {"--wish": asked, "--mask": mask, "--collimator": collimator, "--spare": spare}
    fields = {"--bixel-width": bixel_width, "--technique": None if technique == "vmat" else technique}
    _refuse(network, {**options, **(fields if arcs else {})}, taken)
    live = _linac(load_machine(machine))
    check_folder(out)
    show_warnings()
    moved = {"technique": technique or ("vmat" if arcs else "sliding_window"), "limits": limits or linac}
    given = {"case": case, "machine": machine, "beams": {"bixel_width": bixel_width or 5.0}}
    given |= _grids(spacing(grid, "--grid"), moved, arcs)
    with listening_console() as console:
        spec = plan_spec(given)
        patient, source = named_patient(spec)
        seen = (network, spec, patient, live, source)
        delivered, beside = (_arc(*seen, spare), None) if arcs else _fields(*seen, mask, collimator, asked)
        _written(delivered, out, spec, source, beside, not no_figures)
        print(f"in {out}  [{console.total()}]")
    return 0


def _linac(machine: Machine) -> PhotonMachine:
    from radplan.machines.photon import PhotonMachine

    if not isinstance(machine, PhotonMachine):
        raise InputError(f"{machine.name!r} is no photon machine: networks that propose photon dose plan with photons")
    return machine


def _grids(step: float | tuple[float, float, float] | None, moved: dict[str, Any], arcs: bool) -> dict[str, Any]:
    """Return the sections of a plan file that name a dose grid; that of arcs is the grid of their file's dose."""
    if arcs and step is not None:
        return {"delivery": {**moved, "grid": step}}
    return {"delivery": moved, "engine": {"grid": step or 4.0}}


def _written(delivered: Delivered, out: str, spec: PlanSpec, source: Any, beside: Any, figures: bool) -> None:
    from radplan.viz import figures_available, save_figures
    from radplan.workflows.delivery import save_delivery

    paths = [*save_delivery(delivered, out, spec, delivered.plan.patient, source)]
    if figures and figures_available():
        paths += save_figures(delivered.plan, out, beside=beside, label="reproduced by fluence")
    print(", ".join(path.name for path in paths))


def _kind(network: Any) -> tuple[bool, tuple[str, ...], str]:
    """Return whether a network plans arcs, which options it takes, and whose limits are kept when none are named."""
    from radplan.ai.airt_planner import AirtPlanner
    from radplan.ai.aperture_planner import AperturePlanner

    if isinstance(network, AperturePlanner):
        return True, (), network.spec.limits
    if isinstance(network, AirtPlanner):
        return True, ("--spare",), "TrueBeam"
    return False, ("--wish", "--mask", "--collimator"), "TrueBeam"


def _refuse(network: Any, options: dict[str, Any], taken: tuple[str, ...]) -> None:
    for option, value in options.items():
        if value is not None and option not in taken:
            raise InputError(f"the model {network.card['name']} takes no {option}: leave it out")


def _arc(
    network: Any,
    spec: PlanSpec,
    patient: Patient,
    machine: PhotonMachine,
    source: Any,
    spare: list[str] | None,
) -> Delivered:
    from radplan.ai.airt_planner import AirtPlanner, deliver_proposal
    from radplan.ai.arc_delivery import deliver_arc
    from radplan.machines.limits import machine_limits

    if machine.name != network.machine.name:
        raise InputError(
            f"the model {network.card['name']} plans for {network.machine.name}, got {machine.name}: take its machine"
        )
    if isinstance(network, AirtPlanner):
        shares = {name: _share(name, text) for name, text in pairs(spare, "--spare").items()}
        proposal = network.propose(patient, shares)
        delivered = deliver_proposal(proposal, spec, machine, machine_limits(spec.delivery.limits), source)
    else:
        if machine_limits(spec.delivery.limits).name != network.limits.name:
            raise InputError(
                f"the model {network.card['name']} moves the leaves of {network.limits.name}, got limits of "
                f"{spec.delivery.limits}: leave --limits out"
            )
        proposal = network.propose(patient)
        delivered = deliver_arc(proposal.arc, proposal.case, spec, machine, source)
    for name, values in delivered.plan.metrics(names=["Dmean", "D98", "D2"]).items():
        if name in proposal.case.layout.structures:
            print(f"{name:14s} " + "  ".join(f"{key} {value:6.2f} Gy" for key, value in values.items()))
    return delivered


def _share(name: str, text: str) -> float:
    try:
        return float(text.removesuffix("%")) / 100.0
    except ValueError:
        raise InputError(f"--spare takes NAME=10%, got {name}={text!r}") from None


def _fields(
    network: Any,
    spec: PlanSpec,
    patient: Patient,
    machine: PhotonMachine,
    source: Any,
    mask: str | None,
    collimator: float | None,
    asked: list[str] | None,
) -> tuple[Delivered, Any]:
    from radplan.ai.dvh import Wish
    from radplan.ai.dvh_planner import DvhPlanner
    from radplan.ai.planning import plan_proposal
    from radplan.io.openkbp import DOSE_MASK

    changes = [Wish.parse(text) for text in asked or ()]
    if isinstance(network, DvhPlanner):
        patient = network.named(patient)
    elif changes:
        raise InputError(f"the model {network.card['name']} is not steered by DVHs and takes no --wish: try pelvis-dvh")
    counted = mask or (DOSE_MASK if DOSE_MASK in patient.structures else None)
    result = plan_proposal(network, spec, patient, machine, source, counted, collimator=collimator, wishes=changes)
    gamma = result.mimicry.gamma
    print(result.table())
    print(f"gamma {gamma.criteria} between proposal and fluence: {gamma.passing:.1f} % pass")
    return result.delivered, result.mimicry.plan.dvh()
