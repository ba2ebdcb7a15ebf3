"""The verb ``radplan gamma``: two doses compared voxel by voxel."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from radplan.cli.arguments import gamma_criteria
from radplan.cli.console import show_warnings


def command(
    dose: Annotated[str, typer.Argument(metavar="DOSE", help="The dose under test: RTDOSE, NRRD, a plan's folder.")],
    reference: Annotated[str, typer.Argument(metavar="REFERENCE", help="What it should be.")],
    patient: Annotated[
        str | None, typer.Option(metavar="CASE", help="Whose doses they are; plans' folders know their own.")
    ] = None,
    criteria: Annotated[
        list[str] | None, typer.Option(metavar="PERCENT,MM", help="Criteria (default 3,3), of the maximum above 10 %.")
    ] = None,
) -> int:
    """Compare two doses: gamma, mean absolute difference, Dice of the 50 and 95 % isodoses."""
    import numpy as np

    from radplan.analysis.agreement import isodose_dice, mean_absolute_difference
    from radplan.analysis.gamma import gamma_index
    from radplan.geometry.resample import resample_linear
    from radplan.workflows.doses import given_dose

    chosen = gamma_criteria(criteria, "--criteria")
    show_warnings(logging.ERROR)
    ours, theirs = given_dose(dose, patient), given_dose(reference, patient)
    gamma = gamma_index(ours.dose, ours.grid, theirs.dose, theirs.grid, chosen)
    there = np.asarray(resample_linear(ours.dose, ours.grid, theirs.grid))
    print(f"gamma {gamma.criteria}: {gamma.passing:.2f} % of {gamma.points} points pass")
    judged = theirs.dose > 0.1 * theirs.dose.max()
    print(f"mean absolute difference above 10 %: {mean_absolute_difference(there, theirs.dose, judged):.3f} Gy")
    for percent, dice in isodose_dice(there, theirs.dose, percents=(50.0, 95.0)).items():
        print(f"Dice of the {percent:.0f} % isodose of the maximum: {dice:.4f}")
    return 0
