"""From a network's dose to a plan that a linac delivers: reproduced, sequenced, exported and calculated again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from radplan.ai.dvh import Wish
from radplan.ai.dvh_planner import DvhPlanner
from radplan.ai.proposer import DoseProposer
from radplan.autoplan.mimic import Mimicry, mimicking_goals, plan_from_dose
from radplan.beams.place import place_beams
from radplan.engines import dose_influence
from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.geometry.resample import resample_linear
from radplan.machines.limits import machine_limits
from radplan.machines.photon import PhotonMachine
from radplan.patient.patient import Patient
from radplan.plan.of_dose import plan_of_dose
from radplan.workflows.delivery import Delivered, check_deliverable, deliver_fluence
from radplan.workflows.setup import dose_grid

if TYPE_CHECKING:
    from radplan.io.dicom.case import DicomCase
    from radplan.io.plan_file.reading import PlanSpec

METRICS = ("Dmean", "D95", "D2")


@dataclass(frozen=True, eq=False)
class ProposedPlan:
    """A plan made from a network's dose, and the doses on the way.

    Parameters
    ----------
    dose : array of shape grid.shape
        Course total that the network proposed [Gy].
    grid : Grid
        Where it is given.
    mimicry : Mimicry
        The fluence that reproduces it, and how near it comes.
    delivered : Delivered
        What a linac delivers of that, with the dose calculated from the exported file.
    """

    dose: npt.NDArray[np.float32]
    grid: Grid
    mimicry: Mimicry
    delivered: Delivered

    def doses(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return metrics [Gy] by dose and structure: proposed, reproduced by fluence, and of the exported file."""
        patient = self.mimicry.plan.patient
        names = [s.name for s in patient.structures.values() if s.role in ("target", "oar")]
        proposed = plan_of_dose(self.dose, self.grid, patient)
        plans = {"proposed": proposed, "fluence": self.mimicry.plan, "exported file": self.delivered.plan}
        return {label: plan.metrics(structures=names, names=list(METRICS)) for label, plan in plans.items()}

    def table(self) -> str:
        """Return the three doses' metrics as text in 100 columns."""
        doses = self.doses()
        lines = [f"{'[Gy]':<16}" + "".join(f"{label:>28}" for label in doses)]
        lines.append(f"{'':<16}" + "".join("".join(f"{m:>9}" for m in METRICS).rjust(28) for _ in doses))
        for name in doses["proposed"]:
            cells = ["".join(f"{doses[label][name][m]:9.2f}" for m in METRICS).rjust(28) for label in doses]
            lines.append(f"{name:<16.16}" + "".join(cells))
        return "\n".join(lines)


def plan_proposal(
    proposer: DoseProposer | DvhPlanner,
    spec: PlanSpec,
    patient: Patient,
    machine: PhotonMachine,
    case: DicomCase | None = None,
    mask: str | None = None,
    iterations: int = 200,
    collimator: float | None = None,
    wishes: Sequence[Wish] = (),
) -> ProposedPlan:
    """Return the deliverable plan that comes near to what a network proposes for a patient.

    The beams are those of the model's layout. Bixel weights reproduce the proposed dose (`plan_from_dose`), leaves and
    monitor units reproduce the weights, scaled so that the highest target's mean is the proposed one, and the dose that
    is told is calculated from the exported file.

    Parameters
    ----------
    proposer : DoseProposer or DvhPlanner
        The network.
    spec : PlanSpec
        Of which beams' `bixel_width`, the dose grid, `fractions` (None takes the patient's, or the model's) and
        `delivery` count: ``sliding_window`` or ``step_and_shoot``.
    patient, machine : Patient, PhotonMachine
        For whom and with what.
    case : DicomCase, optional
        The images that the file refers to.
    mask : str, optional
        Structure in which the network's dose counts; None takes the external contour.
    iterations : int
        Most iterations of the reproduction.
    collimator : float, optional
        Collimator angle of all beams [degree]; None takes 0 or 90, so that leaves move along the targets' shorter side.
    wishes : sequence of Wish
        For a network that is steered by DVHs.

    Raises
    ------
    InputError
        When the technique is another, the model is for another radiation, or something cannot be delivered.
    """
    technique = spec.delivery.technique
    if technique not in ("sliding_window", "step_and_shoot"):
        raise InputError(f"a proposed dose is planned by sliding_window or step_and_shoot, got {technique!r}")
    if proposer.card["radiation"] != machine.radiation:
        raise InputError(
            f"the model {proposer.card['name']} is for {proposer.card['radiation']}, the machine {machine.name} "
            f"for {machine.radiation}: take a machine of that radiation"
        )
    check_deliverable(spec, patient, machine, case)
    where = proposer.fitting(patient.ct.grid)
    if isinstance(proposer, DvhPlanner):
        dose, grid = proposer.predict(patient, where, mask, wishes)
    else:
        dose, grid = proposer.predict(patient, where, mask)
    targets = [name for name in proposer.layout.levels if name in patient.structures]
    beams = place_beams(
        patient,
        machine,
        gantry=proposer.layout.angles,
        collimator=_shorter_side(patient, targets) if collimator is None else collimator,
        bixel_width=spec.beams.bixel_width,
        mlc=machine_limits(spec.delivery.limits).mlc,
        targets=targets,
    )
    dij = dose_influence(patient, beams, machine, grid=dose_grid(spec, patient))
    fractions = spec.fractions or patient.fractions or proposer.fractions
    mimicry = plan_from_dose(dose, grid, dij, patient, fractions, iterations, targets)
    there = np.asarray(resample_linear(dose.astype(np.float64), grid, dij.grid))
    goals = mimicking_goals(there, dij, patient, targets)
    proposed = plan_of_dose(dose, grid, patient).metrics(structures=targets[:1], names=["Dmean"])
    level = (targets[0], "physical_dose", proposed[targets[0]])
    delivered = deliver_fluence(mimicry.plan, spec, machine, goals, level, case)
    return ProposedPlan(dose, grid, mimicry, delivered)


def _shorter_side(patient: Patient, targets: list[str]) -> float:
    """Return 90 where the targets are shorter along the patient than across, else 0 [degree]."""
    voxels = np.unique(np.concatenate([patient.structures[name].voxels for name in targets]))
    x, y, z = np.ptp(patient.ct.grid.points(voxels), axis=0)
    return 90.0 if z < max(x, y) else 0.0
