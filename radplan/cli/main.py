"""The command line: ``radplan plan CASE``, ``radplan recalc RTPLAN``, ``radplan dicom FOLDER``.

Only `argparse` is imported to show help; everything else loads when a command runs.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radplan.cli.recalc import add_recalc
from radplan.errors import FileError, InputError, RadplanError, UnknownNameError

if TYPE_CHECKING:
    from radplan.analysis.dvh import DVH
    from radplan.beams.beam import Beams
    from radplan.geometry.grid import Grid
    from radplan.influence import Dij
    from radplan.io.dicom.case import DicomCase
    from radplan.io.plan_file.reading import PlanSpec
    from radplan.optim.solvers import Progress
    from radplan.patient.patient import Patient
    from radplan.plan import Plan
    from radplan.workflows.setup import Task

DEFAULT_MACHINE = "generic_photon_6mv"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0 done, 2 an error told in one line, 130 interrupted.

    >>> main(["plan", "no-such-case"])
    2
    """
    parsed = parser().parse_args(arguments)
    try:
        code: int = parsed.run(parsed)
    except RadplanError as error:
        print(f"radplan: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("radplan: interrupted; nothing was written", file=sys.stderr)
        return 130
    return code


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands.

    >>> parser().parse_args(["plan", "box"]).case
    'box'
    """
    top = argparse.ArgumentParser(prog="radplan", description="Open radiotherapy treatment planning.")
    top.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    verbs = top.add_subparsers(required=True, metavar="COMMAND")
    plan = verbs.add_parser(
        "plan",
        help="plan a case: place beams, calculate dose influence, optimise, judge, draw",
        description="Plan a case. What the command line says wins over the plan file, which wins over the defaults.",
        epilog="Ctrl-C while optimising keeps the best weights so far; anywhere else it leaves nothing behind.",
    )
    plan.add_argument("case", nargs="?", metavar="CASE", help="a DICOM folder, a matRad .mat patient, tg119 or box")
    plan.add_argument("--plan", metavar="FILE", help="plan file (YAML or JSON), or the plan.json of an earlier plan")
    plan.add_argument("--machine", metavar="M", help=f"built-in name or matRad .mat file (default {DEFAULT_MACHINE})")
    plan.add_argument(
        "--gantry", nargs="+", type=float, metavar="DEG", help="gantry angles (default 0 40 ... 320; particles 90 270)"
    )
    plan.add_argument("--couch", nargs="+", type=float, metavar="DEG", help="couch angles, one or one per beam")
    plan.add_argument("--bixel-width", type=float, metavar="MM", help="side of a bixel, distance of spots (default 5)")
    plan.add_argument("--layer-spacing", type=float, metavar="MM", help="distance of particle layers in water")
    plan.add_argument("--biology", metavar="RBE", help="RBE model of particles (default constant 1.1; tables of ions)")
    plan.add_argument("--grid", nargs="+", type=float, metavar="MM", help="dose grid spacing, one or x y z (default 5)")
    plan.add_argument("--fractions", type=int, metavar="N", help="number of fractions (default: the patient's)")
    plan.add_argument("--device", metavar="D", help="where to calculate: numpy, torch:cpu, torch:cuda:0, ...")
    plan.add_argument("--out", default="out", metavar="DIR", help="folder for the results (default out)")
    plan.add_argument("--no-figures", action="store_true", help="write no png files")
    plan.set_defaults(run=_plan)
    add_recalc(verbs)
    dicom = verbs.add_parser(
        "dicom",
        help="list what a folder of DICOM files holds",
        description="List the patients, studies and series of a folder, what refers to what, and damaged files.",
    )
    dicom.add_argument("folder", metavar="FOLDER", help="a folder, searched with its subfolders")
    dicom.set_defaults(run=_dicom)
    return top


class _Version(argparse.Action):
    """Prints the version without importing the package's parts."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        import radplan

        print(f"radplan {radplan.__version__}")
        parser.exit()


def _plan(parsed: argparse.Namespace) -> int:
    """Everything from the case to the files, one line of progress per stage; 130 when the search was interrupted."""
    from radplan.workflows.setup import background_dose, dose_grid, task

    spec, clock = _spec(parsed), _Clock()
    _check_folder(parsed.out)
    logging.basicConfig(format="radplan: %(levelname)s: %(message)s", level=logging.WARNING)
    patient, machine, case, spec = _load(spec, clock)
    wish = task(spec, patient, machine)
    beside = _beside(spec)
    grid = dose_grid(spec, patient)
    earlier = background_dose(spec, grid, case)
    beams = _beams(spec, patient, machine, clock)
    dij = _influence(spec, patient, beams, machine, grid, wish.engine, clock)
    plan = _optimized(spec, dij, wish, patient, beams, earlier, clock)
    plan = _normalized(spec, plan, clock)
    _tell_metrics(plan, spec)
    clock.done("metrics", plan.normalization or "as optimised")
    figures = spec.outputs.figures and not parsed.no_figures
    paths = _written(plan, spec, parsed.out, figures, clock.seconds, case, beside, machine)
    clock.done("files", ", ".join(path.name for path in paths))
    print(f"\nThe plan lies in {Path(parsed.out).resolve()}  [{clock.total()}]")
    stopped = plan.solution is not None and plan.solution.status.name == "INTERRUPTED"
    return 130 if stopped else 0


def _dicom(parsed: argparse.Namespace) -> int:
    """List what a folder of DICOM files holds."""
    from radplan.io.dicom import describe_folder

    print(describe_folder(parsed.folder))
    return 0


class _Clock:
    """Prints what a stage did and the seconds since the last one."""

    def __init__(self) -> None:
        self.first = self.last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def total(self) -> str:
        return f"{time.perf_counter() - self.first:.0f} s, {time.process_time():.0f} s of processor time"

    def done(self, stage: str, detail: str) -> None:
        now = time.perf_counter()
        self.seconds[stage] = round(now - self.last, 3)
        print(f"{stage:<10} {detail}  [{now - self.last:.1f} s]", flush=True)
        self.last = now


class _Progress:
    """Prints the cost, at most every two seconds."""

    def __init__(self) -> None:
        self.last = 0.0

    def __call__(self, progress: Progress) -> None:
        if time.perf_counter() - self.last > 2.0:
            self.last = time.perf_counter()
            print(f"{'':<10} iteration {progress.iteration:4d}: {progress.value:.6g}", flush=True)


def _check_folder(out: str) -> None:
    """Refuse a folder that cannot be written before any work is done."""
    place = next(p for p in (Path(out), *Path(out).absolute().parents) if p.exists())
    if not place.is_dir():
        raise FileError(place, "is a file; --out names the folder for the results")
    if not os.access(place, os.W_OK):
        raise FileError(place, "is a folder you may not write to; choose another with --out")


def _load(spec: PlanSpec, clock: _Clock) -> tuple[Patient, Any, DicomCase | None, PlanSpec]:
    """Patient, machine and DICOM case, and the specification with what they bring filled in."""
    from radplan.io.load import load_machine
    from radplan.workflows.radiation import check_radiation, machine_name
    from radplan.workflows.setup import filled, named_patient, prepare_patient, wanted_goals

    name = machine_name(spec)
    patient, case = named_patient(spec)
    goals = wanted_goals(spec, patient)
    patient = prepare_patient(spec, patient)
    nz, ny, nx = patient.ct.grid.shape
    clock.done("patient", f"{patient.name}: CT {nz} x {ny} x {nx}, structures {', '.join(patient.structures)}")
    machine = load_machine(name)
    check_radiation(spec, machine)
    spec = filled(spec.model_copy(update={"machine": name}), patient, machine, goals)
    clock.done("machine", f"{machine.name}, {machine.radiation}, prescribed in {spec.quantity}")
    return patient, machine, case, spec


def _beams(spec: PlanSpec, patient: Patient, machine: Any, clock: _Clock) -> Beams:
    from radplan.beams.place import place_beams
    from radplan.workflows.radiation import beam_settings

    beams = place_beams(patient, machine, **beam_settings(spec.beams, machine))
    center = ", ".join(f"{value:.1f}" for value in beams[0].isocenter)
    energies = [energy for beam in beams if beam.energies is not None for energy in beam.energies]
    kind = f"spots of {min(energies):.0f}..{max(energies):.0f} MeV/u" if energies else "bixels"
    clock.done("beams", f"{len(beams)} beams, {beams.count} {kind}, isocentre ({center}) mm")
    return beams


def _influence(
    spec: PlanSpec, patient: Patient, beams: Beams, machine: Any, grid: Grid, engine: Any, clock: _Clock
) -> Dij:
    from radplan.engines.base import dose_influence

    kind = "bixels" if machine.radiation == "photons" else "spots"
    print(f"{'dose':<10} calculating the influence of {beams.count} {kind} ...", flush=True)
    setting = spec.engine
    dij = dose_influence(
        patient,
        beams,
        machine,
        grid=grid,
        engine=engine,
        stored=setting.stored,
        device=setting.device,
        dtype=setting.dtype,
    )
    how = "stored" if setting.stored else "on the fly"
    clock.done("dose", f"{len(dij.voxels)} voxels, {', '.join(dij.images)}, {how}, on {dij.device.name}")
    return dij


def _optimized(
    spec: PlanSpec,
    dij: Dij,
    wish: Task,
    patient: Patient,
    beams: Beams,
    background: Any,
    clock: _Clock,
) -> Plan:
    from radplan.optim.solvers import Status
    from radplan.plan import optimize

    print(f"{'optimise':<10} {len(wish.goals)} goals, {len(wish.constraints)} constraints", flush=True)
    plan = optimize(
        dij,
        wish.goals,
        patient,
        fractions=spec.fractions,
        solver=wish.solver,
        constraints=wish.constraints,
        robust=spec.robust,
        progress=_Progress(),
        beams=beams,
        background=background,
    )
    solution = plan.solution
    if solution is not None:
        clock.done("optimise", f"{solution.status.value} after {solution.iterations} iterations: {solution.value:.6g}")
        if solution.status is not Status.CONVERGED:
            print(f"{'':<10} {solution.status.advice}")
    return plan


def _normalized(spec: PlanSpec, plan: Plan, clock: _Clock) -> Plan:
    """Return the plan scaled as asked; of particles, without spots below the machine's minimum unless refused."""
    from radplan.optim.solvers import Status
    from radplan.plan import deliverable, deliverable_at

    wish = _wished_level(spec, plan)
    stopped = plan.solution is not None and plan.solution.status is Status.INTERRUPTED
    if plan.model.radiation == "photons" or not spec.deliverable or stopped:
        return plan if wish is None else plan.scaled(wish[0], wish[1], **wish[2])
    if wish is None:
        made, report = deliverable(plan, robust=spec.robust)
    else:
        made, report = deliverable_at(plan, wish[0], wish[1], solver=None, robust=spec.robust, **wish[2])
    clock.done("spots", str(report))
    return made


def _wished_level(spec: PlanSpec, plan: Plan) -> tuple[str, Any, dict[str, float]] | None:
    """Return structure, quantity and level; when nothing is said, of the target with the highest level."""
    wish = spec.normalize
    if wish is False:
        return None
    if wish is not None:
        return wish.structure, wish.quantity or plan.prescribed, {wish.metric: wish.level}
    level, targets = plan.patient.prescription, plan.patient.target_names
    if level is None or not targets:
        return None
    levels = dict.fromkeys(targets, 0.0)
    for goal in plan.goals:
        if goal.structure in levels and isinstance(goal.objective.level, int | float):
            levels[goal.structure] = max(levels[goal.structure], float(goal.objective.level))
    return max(levels, key=lambda name: levels[name]), plan.prescribed, {"D95": level}


def _tell_metrics(plan: Plan, spec: PlanSpec) -> None:
    """One table for targets and one for the rest, of every quantity that the plan tells of."""
    from radplan.io.describe import judged

    more = spec.metrics
    for quantity in plan.told(spec.outputs.quantities):
        table = judged(plan, more, quantity)
        unit = plan.unit(quantity)
        print(f"\n{plan.title(quantity)}, {plan.fractions} fractions, {plan.normalization or 'as optimised'}")
        targets = [name for name in table if plan.patient.structures[name].role == "target"]
        for rows in (targets, [name for name in table if name not in targets]):
            if rows:
                heads = list(table[rows[0]])
                width = max(12, *(len(name) for name in rows))
                print(f"{f'[{unit}]':<{width}}" + "".join(f"{head:>9}" for head in heads))
                for name in rows:
                    print(f"{name:<{width}}" + "".join(f"{table[name][head]:9.2f}" for head in heads))
    print(flush=True)


def _beside(spec: PlanSpec) -> dict[str, DVH]:
    """Curves of another system's table by the names of the patient's structures; its path is relative to the case."""
    from radplan.io.dvh_table import read_dvh_table

    wish = spec.outputs.beside
    if wish is None:
        return {}
    if wish.plan is not None:
        table = read_dvh_table(Path(wish.plan) / "dvh.csv")
    else:
        case = Path(str(spec.case))
        table = read_dvh_table((case if case.is_dir() else case.parent) / str(wish.table))
    for name in wish.names.values():
        if name not in table:
            raise UnknownNameError("structure in the DVH table", name, table)
    return {ours: table[theirs] for ours, theirs in wish.names.items()} if wish.names else table


def _written(
    plan: Plan,
    spec: PlanSpec,
    out: str,
    figures: bool,
    seconds: Mapping[str, float],
    case: DicomCase | None,
    beside: Mapping[str, DVH],
    machine: Any,
) -> list[Path]:
    """Files and figures, all or none."""
    from radplan.io.save import save_plan
    from radplan.io.staging import staged
    from radplan.viz import figures_available, save_figures

    label = spec.outputs.beside.label if spec.outputs.beside else ""
    with staged(out) as partial:
        provenance = {"case": spec.case, "seconds": dict(seconds)}
        particles = None if machine.radiation == "photons" else machine
        paths = list(save_plan(plan, partial, spec, provenance, case, particles))
        if figures and figures_available():
            paths += save_figures(plan, partial, beside=beside, label=label)
        elif figures:
            print("figures    none: matplotlib is not installed (pip install 'radplan[viz]')")
    return [Path(out, path.name) for path in paths]


def _spec(parsed: argparse.Namespace) -> PlanSpec:
    """Plan file and command line together."""
    from radplan.io.plan_file.reading import PlanSpec, plan_spec, read_plan_file

    data = (PlanSpec() if parsed.plan is None else read_plan_file(parsed.plan)).model_dump(exclude_unset=True)
    given = {
        ("case",): parsed.case,
        ("machine",): parsed.machine,
        ("fractions",): parsed.fractions,
        ("beams", "gantry"): parsed.gantry,
        ("beams", "couch"): parsed.couch,
        ("beams", "bixel_width"): parsed.bixel_width,
        ("beams", "layer_spacing"): parsed.layer_spacing,
        ("biology",): parsed.biology,
        ("engine", "grid"): parsed.grid,
        ("engine", "device"): parsed.device,
    }
    for keys, value in given.items():
        if value is None:
            continue
        section = data
        for key in keys[:-1]:
            section = section.setdefault(key, {})
        alone = keys[-1] in ("couch", "grid") and len(value) == 1
        section[keys[-1]] = value[0] if alone else value
    if parsed.bixel_width is not None:
        data["beams"].pop("spot_spacing", None)
    spec = plan_spec(data)
    if spec.case is None:
        raise InputError(
            "name a CASE to plan: a DICOM folder, a matRad .mat file, tg119, box, or `case:` in the plan file"
        )
    return spec


if __name__ == "__main__":
    sys.exit(main())
