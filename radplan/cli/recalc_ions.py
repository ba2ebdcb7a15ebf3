"""What ``radplan recalc`` does with an RT Ion Plan: spots, dose, LETd and comparison, calculated, written and told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radplan.cli.console import listening_console
from radplan.cli.recalc_results import tell_doses, written

if TYPE_CHECKING:
    from radplan.recalc import IonRecalculation


def recalculated_ions(
    rtplan: str, patient: str, machine: str | None, out: str, figures: bool, given: Mapping[str, Any]
) -> int:
    """Calculate an RT Ion Plan, write it into a folder and print its figures.

    Parameters
    ----------
    rtplan, patient : str
        The plan and whose it is.
    machine : str, optional
        Name or file.
    out : str
        The folder.
    figures : bool
        Whether png files are drawn.
    given : mapping
        What else `radplan.recalc.recalculate_ions` takes.
    """
    from radplan.recalc import recalculate_ions, save_ion_recalculation

    with listening_console() as console:
        recalculation = recalculate_ions(rtplan, patient, machine, **given)
        read = rtplan, given["reference"] or ()
        paths = written(recalculation, save_ion_recalculation, out, read, console, figures)
        _tell(recalculation)
        print(f"\nin {Path(out).resolve()}: {', '.join(path.name for path in paths)}  [{console.total()}]")
    return 0


def _tell(recalculation: IonRecalculation) -> None:
    from radplan.recalc.ion_files import spot_figures

    scanned = recalculation.scanned
    print(f"plan {scanned.name}: {scanned.mu:.1f} MU a fraction, {recalculation.fractions} fractions of "
          f"{scanned.radiation}, {recalculation.machine.name}")  # fmt: skip
    for row in spot_figures(recalculation):
        layers = "1 layer" if row["layers"] == 1 else f"{row['layers']} layers"
        energies = "-".join(dict.fromkeys(f"{energy:g}" for energy in row["energy"]))
        print(
            f"  {row['number']:>3} {row['name']}: gantry {row['gantry']:g}, couch {row['couch']:g}, {layers} "
            f"of {energies} MeV, {row['spots']} spots, {row['mu']:.2f} MU "
            f"({row['least_mu']:.3g}-{row['largest_mu']:.3g} a spot), {row['particles_1e9']:.4g}e9 particles"
        )
    tell_doses(recalculation)
