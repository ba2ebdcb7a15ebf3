"""The verb ``radplan check``: whether a linac can deliver a photon RTPLAN, and whether the file says so rightly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radplan.cli.console import listening_console
from radplan.errors import FileError, InputError

if TYPE_CHECKING:
    from radplan.machines import MachineLimits


def command(
    rtplan: Annotated[str, typer.Argument(metavar="RTPLAN", help="The file, of any planning system.")],
    limits: Annotated[
        str | None,
        typer.Option(
            metavar="M",
            help="Linac (TrueBeam, 'TrueBeam STx', Clinac, 'Versa HD') or YAML file (default: by the plan's leaves).",
        ),
    ] = None,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write findings and scores as JSON, too.")
    ] = None,
) -> int:
    """Judge a photon RTPLAN: attributes, references, metersets, and every limit of the linac.

    The exit code is 1 when anything is wrong.
    """
    from radplan.io.dicom import check_rtplan
    from radplan.io.staging import staged_file
    from radplan.machines import machine_limits

    with listening_console():
        chosen = _by_leaves(rtplan) if limits is None else machine_limits(limits)
        report = check_rtplan(rtplan, chosen)
        scores = _scores(rtplan, chosen)
    print(report)
    for name, value in scores.items():
        print(f"{name.replace('_', ' ')}: {value:.4g}")
    if json_file is not None:
        content = {
            "file": report.path.name,
            "limits": report.limits,
            "findings": [{"kind": one.kind, "where": one.where, "what": one.what} for one in report.findings],
            "scores": scores,
        }
        with staged_file(Path(json_file)) as partial:
            partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 1 if report.findings else 0


def _by_leaves(rtplan: str) -> MachineLimits:
    """Return the limits of the first linac in the library with the plan's leaves."""
    from radplan.io.dicom import read_plan
    from radplan.machines import limits_for, matching_mlc

    for field in read_plan(rtplan):
        if field.leaf_boundaries is not None:
            return limits_for(matching_mlc(field.leaf_boundaries))
    raise InputError(f"{rtplan} has no leaves to know the linac by: give --limits")


def _scores(rtplan: str, limits: MachineLimits) -> dict[str, Any]:
    """Return monitor units, times and modulation; none where the plan cannot be read, which the report has told."""
    from radplan.delivery.check import check_delivery
    from radplan.io.dicom import read_plan

    try:
        return check_delivery(read_plan(rtplan), limits).scores()
    except FileError:
        return {}
