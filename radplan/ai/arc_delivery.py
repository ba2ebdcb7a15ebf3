"""From an arc that networks propose to the dose of its file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from radplan.ai.arc_case import ArcCase
from radplan.beams.control_points import DeliveryPlan
from radplan.machines.photon import PhotonMachine
from radplan.workflows.delivery import Delivered, check_deliverable, deliver_plan

if TYPE_CHECKING:
    from radplan.io.dicom.case import DicomCase
    from radplan.io.plan_file.reading import PlanSpec


def deliver_arc(
    arc: DeliveryPlan, case: ArcCase, spec: PlanSpec, machine: PhotonMachine, source: DicomCase | None = None
) -> Delivered:
    """Return an arc as read back from its file, scaled so that the target's mean is the prescription.

    Parameters
    ----------
    arc : DeliveryPlan
        What networks propose for the case.
    case : ArcCase
        Of the patient.
    spec : PlanSpec
        With ``delivery.technique`` ``"vmat"``; its dose grid is the file's.
    machine : PhotonMachine
        The linac.
    source : DicomCase, optional
        The images that the file refers to.

    Raises
    ------
    InputError
        When the linac cannot deliver it, or the images lack identifiers that a file must carry.
    """
    check_deliverable(spec, case.patient, machine, source)
    level = case.target, "physical_dose", {"Dmean": case.protocol.targets[case.target]}
    return deliver_plan(arc, spec, case.patient, machine, level, source)
