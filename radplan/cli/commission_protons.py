"""The verb ``radplan commission protons``: a machine made of what a clinic knows of its beam."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from radplan.cli.arguments import file_kind, numbers
from radplan.cli.console import listening_console, print_table
from radplan.errors import InputError

if TYPE_CHECKING:
    from radplan.machines import ParticleMachine

Model = Annotated[
    str, typer.Argument(metavar="BEAM_MODEL", help="CSV of energies, spread, spot size, divergence, protons per MU.")
]
Out = Annotated[str, typer.Option("--out", "--output", metavar="MACHINE", help="The machine to write, a .npz file.")]
Name = Annotated[str | None, typer.Option(metavar="NAME", help="Name of the machine (default: the file's).")]
Plane = Annotated[
    float | None, typer.Option(metavar="MM", help="From the model's plane to the isocentre (default: as it states).")
]
Sad = Annotated[
    list[str] | None, typer.Option(metavar="MM", help="From the scanning magnets to the isocentre: one, or x,y.")
]
Energies = Annotated[
    list[str] | None, typer.Option(metavar="MEV", help="Nominal energies to tabulate (default: every 1 MeV).")
]
LeastMu = Annotated[float, typer.Option("--min-mu", metavar="MU", help="Least MU of a spot.")]
LargestMu = Annotated[float, typer.Option("--max-mu", metavar="MU", help="Largest MU of a spot.")]
Measured = Annotated[
    str | None, typer.Option(metavar="CSV", help="Measured depth doses: nominal energy [MeV], depth [mm], dose.")
]


def protons(
    beam_model: Model,
    out: Out,
    name: Name = None,
    plane: Plane = None,
    sad: Sad = None,
    energies: Energies = None,
    min_mu: LeastMu = 0.0,
    max_mu: LargestMu = inf,
    measured: Measured = None,
) -> int:
    """Make a proton machine of a beam model: depth doses, LET and spots of every energy, in monitor units.

    The machine serves radplan plan and radplan recalc: --machine MACHINE.
    """
    from radplan.commissioning.protons import particle_machine_from_beam_model, read_measured
    from radplan.io.staging import staged_file
    from radplan.machines import write_particle_machine

    file_kind(out, (".npz",))
    distances = numbers(sad, "--sad") or [2000.0]
    if len(distances) > 2:
        raise InputError(f"--sad takes one distance or x,y, got {len(distances)} numbers")
    with listening_console() as console:
        machine = particle_machine_from_beam_model(
            beam_model,
            name=name,
            plane=plane,
            energies=numbers(energies, "--energies"),
            sad=(distances[0], distances[-1]),
            min_mu=min_mu,
            max_mu=max_mu,
            measured=None if measured is None else read_measured(measured),
        )
        with staged_file(Path(out)) as partial:
            write_particle_machine(machine, partial)
        _tell(machine)
        print(f"\n{Path(out).resolve()}: {len(machine.layers)} energies  [{console.total()}]")
    return 0


def _tell(machine: ParticleMachine) -> None:
    """Print what the machine delivers, for about ten energies."""
    rows = {}
    for layer in machine.layers[:: max(1, len(machine.layers) // 10)]:
        width = layer.emittance.variance(0.0) ** 0.5 if layer.emittance is not None else [0.0, 0.0]
        rows[f"{layer.energy:g} MeV"] = {
            "mean MeV": layer.mean_energy,
            "sigma MeV": layer.energy_sigma,
            "R80 mm": layer.range80,
            "spot x mm": float(width[0]),
            "spot y mm": float(width[1]),
            "1e6/MU": layer.particles_per_mu / 1e6,
        }
    print(f"{machine.name}: standard deviations of spots in air at the isocentre, ranges in water")
    print_table(rows, digits=3)
