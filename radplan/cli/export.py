"""The verb ``radplan export``: a plan or a case in the files of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from radplan.cli.console import show_warnings
from radplan.errors import InputError


def command(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Folder of a plan, or a case as `plan` takes it.")],
    matrad: Annotated[
        str | None, typer.Option(metavar="FILE", help="A .mat file: ct, cst, pln, resultGUI (of a plan).")
    ] = None,
    images: Annotated[str | None, typer.Option(metavar="DIR", help="CT, dose and masks as images (of a plan).")] = None,
    suffix: Annotated[
        str, typer.Option(metavar="END", help="Kind of images: .nii.gz, .nrrd, .mha, .mhd, .nii.")
    ] = ".nii.gz",
    dicom: Annotated[str | None, typer.Option(metavar="DIR", help="CT, RTSTRUCT and RTDOSE that name nobody.")] = None,
    pseudonym: Annotated[
        str, typer.Option(metavar="NAME", help="PatientID and PatientName of the DICOM files.")
    ] = "anonymous",
) -> int:
    """Write for other programs. DICOM files are made anew: only voxels, geometry, structure names and dose go in."""
    from radplan.io.load import load_patient
    from radplan.workflows.reopening import load_plan

    show_warnings()
    if matrad is None and images is None and dicom is None:
        raise InputError("say what to write: --matrad FILE, --images DIR or --dicom DIR")
    plan = load_plan(source) if Path(source, "plan.json").is_file() else None
    if plan is None and (matrad is not None or images is not None):
        raise InputError(f"{source} is no folder of a plan: --matrad and --images take one")
    if matrad is not None and plan is not None:
        from radplan.io.matrad.results import write_results

        print(f"matRad     {write_results(plan, matrad)}")
    if images is not None and plan is not None:
        from radplan.io.images import save_images

        print(f"images     {len(save_images(plan, images, suffix))} files in {images}")
    if dicom is not None:
        from radplan.io.dicom import export_anonymous

        paths = export_anonymous(plan or load_patient(source), dicom, pseudonym)
        print(f"dicom      {len(paths)} files in {dicom}; names of structures are kept, look at them")
    return 0
