"""DICOM: CT series, structure sets, photon plans and doses in and out, in the patient's own coordinates."""

from __future__ import annotations

from radplan.io.dicom.anonymous import export_anonymous, write_ct
from radplan.io.dicom.case import DicomCase, read_case, read_patient, region_names
from radplan.io.dicom.contours import fill_contours
from radplan.io.dicom.ct import CTSeries, read_ct
from radplan.io.dicom.folder import FileEntry, Folder, describe_folder, list_folder
from radplan.io.dicom.ion_plan import is_ion_plan, read_ion_plan
from radplan.io.dicom.ion_plan_export import export_ion_plan
from radplan.io.dicom.orientation import Orientation
from radplan.io.dicom.plan_reference import PlanReference, read_plan_reference
from radplan.io.dicom.rtdose import DoseImage, read_dose
from radplan.io.dicom.rtdose_export import write_dose
from radplan.io.dicom.rtdose_sum import read_summed_dose
from radplan.io.dicom.rtplan import read_plan
from radplan.io.dicom.rtplan_check import RTPlanFinding, RTPlanReport, check_rtplan
from radplan.io.dicom.rtplan_export import RTPlanOptions, export_rtplan
from radplan.io.dicom.rtstruct import read_regions, read_structures
from radplan.io.dicom.rtstruct_export import export_structures
from radplan.io.dicom.water import read_water_case

__all__ = [
    "CTSeries",
    "DicomCase",
    "DoseImage",
    "FileEntry",
    "Folder",
    "Orientation",
    "PlanReference",
    "RTPlanFinding",
    "RTPlanOptions",
    "RTPlanReport",
    "check_rtplan",
    "describe_folder",
    "export_anonymous",
    "export_ion_plan",
    "export_rtplan",
    "export_structures",
    "fill_contours",
    "is_ion_plan",
    "list_folder",
    "read_case",
    "read_ct",
    "read_dose",
    "read_ion_plan",
    "read_patient",
    "read_plan",
    "read_plan_reference",
    "read_regions",
    "read_structures",
    "read_summed_dose",
    "region_names",
    "read_water_case",
    "write_ct",
    "write_dose",
]
