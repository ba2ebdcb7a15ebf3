"""What is open in the app: a case, what is asked for, plans, and the work that goes on. It knows no browser.

One session belongs to one server. Browsers show it and come and go: work goes on in a thread of its own, and what it
makes is kept here and in the opened folder.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from radplan.app.workspace import Workspace
from radplan.errors import InputError, RadplanError
from radplan.io.load import load_machine, load_patient
from radplan.io.plan_file.reading import PlanSpec, plan_spec, read_plan_file
from radplan.optim.goals import Goal
from radplan.patient.patient import Patient
from radplan.plan import Plan
from radplan.plan.pareto import Front, pareto
from radplan.progress import Report, listening, sentence
from radplan.workflows.planning import Outcome, normalization_level, run
from radplan.workflows.writing import plan_text

logger = logging.getLogger(__name__)

_SHOWN_EVERY = 1.5
"""Seconds between plans shown while a search goes on."""

_PHYSICS = (
    "case", "machine", "radiation", "biology", "beams", "engine", "robust", "hu_table", "external", "structures",
    "densities", "tissues", "dicom",
)  # fmt: skip
"""Parts of a specification that the dose influence depends on."""


@dataclass(frozen=True, eq=False)
class Kept:
    """A plan that the session has made.

    Parameters
    ----------
    plan : Plan
        What is shown and compared.
    asked, spec : PlanSpec
        What was asked for, and with everything said that it left open.
    outcome : Outcome, optional
        All of it, where it came from a whole run.
    folder : Path, optional
        Where it was written.
    """

    plan: Plan
    asked: PlanSpec
    spec: PlanSpec
    outcome: Outcome | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class Work:
    """How far the work is.

    Parameters
    ----------
    busy : bool
        Whether something is going on.
    step : str
        What, in words.
    share : float, optional
        How much of the step is done, 0 to 1.
    error : str
        What went wrong last.
    version : int
        Grows whenever there is something new to show.
    """

    busy: bool = False
    step: str = ""
    share: float | None = None
    error: str = ""
    version: int = 0


class Session:
    """A case, its plans and what is asked for.

    Parameters
    ----------
    workspace : Workspace
        What may be read and written.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.spec = PlanSpec()
        self.case = ""
        self.patient: Patient | None = None
        self.plans: dict[str, Kept] = {}
        self.fronts: dict[str, Front] = {}
        self.interim: Plan | None = None
        self.work = Work()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = False
        self._shown = 0.0
        self._begun: dict[str, float] = {}

    def open(self, case: str) -> None:
        """Read a case, and fill in what a plan of it begins with; in the background."""
        where = self.workspace.case(case)
        self._begin("reading the case", lambda: self._open(case, where))

    def use_plan_file(self, name: str) -> None:
        """Take what a plan file in the folder says; its case is that which is open.

        Raises
        ------
        RadplanError
            When it cannot be read.
        """
        spec = read_plan_file(self.workspace.inside(name))
        self.spec = spec.model_copy(update={"case": self.spec.case})
        self._tell(error="")

    def ask(self, changes: Mapping[str, Any]) -> None:
        """Change what is asked for: keys of a plan file, such as ``machine``, ``beams``, ``goals``.

        Raises
        ------
        InputError
            When a value does not fit; nothing changes then.
        """
        data = self.spec.model_dump(exclude_unset=True)
        for key, value in changes.items():
            if value is None:
                data.pop(key, None)
            elif isinstance(value, Mapping):
                data[key] = {**data.get(key, {}), **value}
            else:
                data[key] = value
        self.spec = plan_spec(data)

    def start(self, name: str) -> None:
        """Plan what is asked for, in the background; the plan is kept under a name and written to the folder.

        Raises
        ------
        InputError
            When no case is open, the name is taken or bad, or something is going on.
        """
        if self.patient is None or not self.spec.case:
            raise InputError("open a case first")
        if name in self.plans:
            raise InputError(f"there is a plan {name!r} already: choose another name")
        folder = self.workspace.plan_folder(name)
        if folder.exists():
            raise InputError(f"the folder has a plan {name!r} already: choose another name")
        spec = self.spec
        self._begin("planning", lambda: self._plan(name, folder, spec))

    def stop(self) -> None:
        """End the search that goes on; the best plan so far is kept."""
        self._stop = True

    def prepare_sliders(self, name: str) -> None:
        """Calculate the plans between which organ sliders steer, in the background.

        Raises
        ------
        InputError
            When the plan is not there, or has fewer than two goals.
        """
        kept = self._kept(name)
        if len([goal for goal in kept.plan.goals if goal.weight > 0.0]) < 2:
            raise InputError("sliders need a plan with two goals or more")
        self._begin("preparing sliders", lambda: self._prepare(name, kept))

    def steer(self, name: str, wishes: Mapping[str, float]) -> Plan:
        """Return the plan that comes nearest to wishes, by the labels of the front's goals, at the level of the first.

        Raises
        ------
        InputError
            When the sliders are not prepared.
        """
        if name not in self.fronts:
            raise InputError("prepare the sliders first")
        plan, kept = self.fronts[name].navigate(wishes), self._kept(name)
        level = normalization_level(kept.spec, plan)
        return plan if level is None else plan.scaled(level[0], level[1], **level[2])

    def keep(self, name: str, plan: Plan, source: str) -> None:
        """Keep a plan that was steered to, and write it.

        Raises
        ------
        InputError
            When the name is taken or bad.
        """
        from radplan.io.save import save_plan

        if name in self.plans:
            raise InputError(f"there is a plan {name!r} already: choose another name")
        folder = self.workspace.plan_folder(name)
        goals = tuple(goal.to_spec() for goal in plan.goals)
        spec = plan_spec({**self._kept(source).spec.model_dump(exclude_unset=True), "goals": goals})
        save_plan(plan, folder, spec, {"case": spec.case, "steered from": source})
        self.plans[name] = Kept(plan, spec, spec, None, folder)
        self._tell(error="")

    def export(self, name: str, kinds: tuple[str, ...], patient_name: bool = False) -> list[Path]:
        """Write a plan for others into its folder: ``report``, ``matrad``, ``dicom`` (naming nobody), ``images``.

        Raises
        ------
        InputError
            When the plan is not there.
        """
        from radplan.io.dicom import export_anonymous
        from radplan.io.images import save_images
        from radplan.io.matrad.results import write_results
        from radplan.report.content import read_delivery, read_provenance
        from radplan.report.document import save_report

        kept = self._kept(name)
        folder = self.workspace.plan_folder(name)
        paths: list[Path] = []
        if "report" in kinds:
            known = read_delivery(folder), read_provenance(folder)
            paths.append(save_report(kept.plan, folder / "report.html", None, *known, patient_name))
        if "matrad" in kinds:
            paths.append(write_results(kept.plan, folder / "matrad.mat"))
        if "dicom" in kinds:
            paths += export_anonymous(kept.plan, folder / "dicom")
        if "images" in kinds:
            paths += save_images(kept.plan, folder / "images")
        return paths

    def wait(self, seconds: float = 600.0) -> None:
        """Wait for the work that goes on."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _kept(self, name: str) -> Kept:
        if name not in self.plans:
            raise InputError(f"there is no plan {name!r}")
        return self.plans[name]

    def _begin(self, step: str, act: Callable[[], None]) -> None:
        with self._lock:
            if self.work.busy:
                raise InputError(f"busy {self.work.step or 'with something else'}: wait, or stop it")
            self._stop = False
            self._begun = {}
            self._tell(busy=True, step=step, share=None, error="")
        self._thread = threading.Thread(target=self._carried_out, args=(act,), daemon=True)
        self._thread.start()

    def _carried_out(self, act: Callable[[], None]) -> None:
        error = ""
        try:
            with listening(self._listen):
                act()
        except RadplanError as reason:
            error = " ".join(str(reason).split())
        except Exception:  # a fault must reach the page, not end a thread in silence
            logger.exception("the app's work ended by a fault")
            error = "a fault of radplan ended the work; the log of the server has the details"
        self._tell(busy=False, step="", share=None, error=error)

    def _tell(self, **changes: Any) -> None:
        self.work = replace(self.work, version=self.work.version + 1, **changes)

    def _listen(self, told: Report) -> None:
        now = time.perf_counter()
        begun = self._begun.setdefault(told.step, now)
        said = told.detail.splitlines()[0] if told.finished and told.detail else ""
        text = f"{told.step}: {said}" if told.finished and told.step != "patient" else sentence(told, now - begun)
        self._tell(step=told.step if told.step == "patient" else text, share=told.share)

    def _open(self, case: str, where: str) -> None:
        patient = load_patient(where)
        spec = plan_spec(yaml.safe_load(plan_text(where, patient)))
        self.patient, self.spec, self.case = patient, spec, case
        self.plans, self.fronts, self.interim = {}, {}, None

    def _plan(self, name: str, folder: Path, spec: PlanSpec) -> None:
        outcome = run(spec, self._listen, self._model_for(spec), self._watch)
        self._tell(step="writing")
        outcome.save(folder)
        self.plans[name] = Kept(outcome.plan, spec, outcome.spec, outcome, folder)
        self.interim = None

    def _model_for(self, spec: PlanSpec) -> Any:
        """Return the dose influence of a plan of the same physics, which goals do not change."""
        for kept in reversed(self.plans.values()):
            known = kept.outcome is not None and kept.outcome.delivered is None
            if known and spec.delivery.technique == "fluence" and _physics(kept.asked) == _physics(spec):
                return kept.plan.model
        return None

    def _watch(self, plan: Plan) -> bool:
        if self._stop:
            return True
        now = time.perf_counter()
        if now - self._shown > _SHOWN_EVERY:
            self._shown = now
            self.interim = plan
            self._tell()
        return False

    def _prepare(self, name: str, kept: Kept) -> None:
        goals: list[Goal] = [goal for goal in kept.plan.goals if goal.weight > 0.0]
        levels = 3 if len(goals) <= 3 else 2
        self.fronts[name] = pareto(
            kept.plan.model,
            goals,
            kept.plan.patient,
            kept.plan.fractions,
            levels=levels,
            beams=kept.plan.beams,
            progress=lambda done, total: self._tell(step=f"sliders: {done} of {total} plans", share=done / total),
        )


def _physics(spec: PlanSpec) -> Any:
    data = spec.model_dump(mode="json")
    return {key: data[key] for key in _PHYSICS}


def machine_kind(name: str) -> str:
    """Return the radiation of a machine, for the fields that a page shows."""
    return load_machine(name).radiation
