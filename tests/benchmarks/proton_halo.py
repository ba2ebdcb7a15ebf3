"""The halo of single proton beams in water by MCsquare: the table that commissioned machines take, and what it gives.

``python -m tests.benchmarks.proton_halo PROGRAM FOLDER [FIGURE]``, with the opentps-core wheel (Apache-2.0) that holds
MCsquare, or the folder that it was unpacked into. FOLDER keeps what was simulated, so that a second call only reads it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.optimize import least_squares
from scipy.special import erf

from radplan.beams.beam import Beams
from radplan.commissioning.protons import particle_machine_from_beam_model
from radplan.engines.monte_carlo.protons import simulate_protons
from radplan.geometry.grid import Grid
from radplan.machines import BeamModel, ParticleMachine
from radplan.machines.generate.halo import soukup_halo
from radplan.machines.generate.lateral import scattered
from radplan.machines.generate.stopping import SPECIES, range_table
from radplan.machines.particle import EnergyLayer
from radplan.patient.ct import CT
from radplan.patient.patient import Patient
from radplan.patient.structures import Structure, Structures

FITTED = (70.0, 100.0, 150.0, 200.0, 225.0)
"""Energies that the table is made of [MeV]."""
OTHERS = (120.0, 180.0)
"""Energies that judge it [MeV]."""
SPOT, ENERGY_SIGMA = 3.0, 0.6
"""Standard deviations of the simulated spot [mm] and energy [MeV]."""
SIDES = np.asarray([20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 120.0, 150.0, 200.0])
"""Sides of squares [mm]."""
RADII = np.asarray([10.0, 20.0, 30.0, 40.0, 60.0])
"""Radii of disks [mm]."""
DEPTHS = np.asarray([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.975, 1.0])
"""Depths of the table, over the mean range."""
JUDGED = (0.1, 0.3, 0.5, 0.8, 0.97)
"""Depths that are compared, over the mean range."""
HISTORIES, STEP, HALF = 1_000_000, 2.0, 150.0

_VARIANCE = SPOT**2 + STEP**2 / 12.0
"""Of the simulated spot at the surface, and of what a voxel averages over [mm^2]."""


def machine(energy: float) -> ParticleMachine:
    """Return a machine of parallel round spots of one energy [MeV]."""
    column = {
        "nominal": energy, "energy": energy, "energy_sigma": ENERGY_SIGMA, "protons_per_mu": 1e6, "sigma_x": SPOT,
        "sigma_y": SPOT, "divergence_x": 1e-6, "divergence_y": 1e-6, "correlation_x": 0.0, "correlation_y": 0.0,
    }  # fmt: skip
    model = BeamModel("parallel", 0.0, **{name: np.asarray([value]) for name, value in column.items()})
    return particle_machine_from_beam_model(model, sad=10000.0)


def mean_range(energy: float) -> float:
    """Return the mean range of protons in water [mm]."""
    return float(range_table("proton").range(energy / SPECIES["proton"].mass))


def water(depth: float) -> Patient:
    """Return water whose surface is the plane y = 0, and whose voxels are those that score."""
    count, deep = 2 * round(HALF / STEP) + 1, int(np.ceil(depth / STEP))
    grid = Grid((count, deep, count), (STEP,) * 3, (-HALF, 0.5 * STEP, -HALF))
    body = Structure.from_mask("BODY", grid, np.ones(grid.shape, dtype=bool), role="external")
    return Patient("water", CT(grid, np.zeros(grid.shape, dtype=np.float32)), Structures([body]))


def simulated(energy: float, program: Path, folder: Path) -> dict[str, np.ndarray]:
    """Return ``depth`` [mm], ``dose`` of the plane, and its shares: in a ``square``, and ``beyond`` a disk."""
    path = folder / f"mcsquare_{energy:g}.npz"
    if not path.exists():
        linac, patient = machine(energy), water(1.06 * mean_range(energy) + 10.0)
        beams = Beams.from_rays(
            [np.zeros((1, 2))], gantry=0.0, isocenter=(0.0, 0.0, 0.0), sad=linac.sad, bixel_width=STEP,
            machine=linac.name, radiation="protons", energies=[np.asarray([energy])],
        )  # fmt: skip
        found = simulate_protons(patient, beams, linac, [1.0], patient.ct.grid, program, HISTORIES)
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(path, **shares(found.dose))
    with np.load(path) as stored:
        return dict(stored)


def shares(dose: np.ndarray) -> dict[str, np.ndarray]:
    """Return what `simulated` keeps of a dose (x, depth, z) of voxels of `STEP` around the axis."""
    across = (np.arange(dose.shape[0]) - dose.shape[0] // 2) * STEP
    total = dose.sum(axis=(0, 2))
    weights = np.clip((0.5 * SIDES[:, None] - np.abs(across)) / STEP + 0.5, 0.0, 1.0)
    square = np.einsum("sx,sz,xyz->ys", weights, weights, dose) / np.maximum(total, 1e-300)[:, None]
    fine = (across[:, None] + STEP * ((np.arange(5) + 0.5) / 5 - 0.5)).ravel()
    radius = np.hypot(fine[:, None], fine).reshape(across.size, 5, across.size, 5)
    outer = np.stack([(radius > r).mean(axis=(1, 3)) for r in RADII])
    beyond = np.einsum("rxz,xyz->yr", outer, dose) / np.maximum(total, 1e-300)[:, None]
    return {"depth": (np.arange(total.size) + 0.5) * STEP, "dose": total, "square": square, "beyond": beyond}


def at(table: dict[str, np.ndarray], name: str, depth: float, half: float) -> np.ndarray:
    """Return shares at a depth [mm], the dose-weighted mean over a length of water on either side."""
    near = np.abs(table["depth"] - depth) <= max(half, 0.5 * STEP + 1e-9)
    return np.asarray(np.average(table[name][near], axis=0, weights=table["dose"][near]))


def in_squares(core: float, halo: float, share: float) -> np.ndarray:
    """Return the share of two Gaussians of standard deviations in water [mm] in the squares of `SIDES`."""
    parts = [erf(0.5 * SIDES / np.sqrt(2.0 * (sigma**2 + _VARIANCE))) ** 2 for sigma in (core, halo)]
    return np.asarray((1.0 - share) * parts[0] + share * parts[1])


def over_ten(square: np.ndarray) -> np.ndarray:
    """Return shares in `SIDES` over that in the 10x10."""
    return square / square[SIDES == 100.0]


def averaged_over(part: float, reach: float) -> float:
    """Return how far to either side of a depth, a part of the range, the simulation is averaged [mm]."""
    return 0.02 * reach if part < 0.88 else 0.0


def fitted(energy: float, table: dict[str, np.ndarray]) -> list[tuple[float, float]]:
    """Return share and added standard deviation [mm] of the halo at `DEPTHS`.

    By least squares over squares of 2 to 8 cm, relative to the 10x10, in which monitor units are calibrated.
    """
    reach, rows = mean_range(energy), []
    for part in DEPTHS:
        depth = float(part) * reach
        core = float(scattered(range_table("proton"), reach, np.asarray([depth]), "moliere")[0])
        wanted = over_ten(at(table, "square", depth, averaged_over(part, reach)))

        def missing(numbers: np.ndarray, core: float = core, wanted: np.ndarray = wanted) -> np.ndarray:
            return (over_ten(in_squares(core, float(np.hypot(core, numbers[1])), numbers[0])) - wanted)[SIDES < 100.0]

        answer = least_squares(missing, [0.1, 15.0], bounds=([0.0, 2.0], [0.2, 80.0]))
        rows.append((float(answer.x[0]), float(answer.x[1])))
    return rows


def of_layer(layer: EnergyLayer, depth: float, halo: str) -> tuple[np.ndarray, np.ndarray]:
    """Return shares in `SIDES` and beyond `RADII` of a layer at a depth [mm]: with its own halo, or that of Soukup."""
    core, second, share = (
        float(np.interp(depth, layer.depth, layer.__dict__[n])) for n in ("sigma1", "sigma2", "weight")
    )
    if halo == "soukup":
        found = soukup_halo(mean_range(layer.energy), np.asarray([depth]))
        share, second = float(found[0][0]), float(np.hypot(core, found[1][0]))
    variances = [sigma**2 + _VARIANCE for sigma in (core, second)]
    outside = [np.exp(-0.5 * RADII**2 / variance) for variance in variances]
    return in_squares(core, second, share), (1.0 - share) * outside[0] + share * outside[1]


def judged(energy: float, table: dict[str, np.ndarray]) -> None:
    """Print shares beyond disks and in squares at five depths: MCsquare, radplan, and radplan with Soukup's halo."""
    layer, reach = machine(energy).entry(0), mean_range(energy)
    for part in JUDGED:
        depth = part * reach
        square, beyond = (at(table, name, depth, averaged_over(part, reach)) for name in ("square", "beyond"))
        both = (of_layer(layer, depth, halo) for halo in ("own", "soukup"))
        for label, (squares, outer) in zip(("MCsquare", "radplan", "Soukup"), [(square, beyond), *both], strict=True):
            told = " ".join(f"{100 * value:5.2f}" for value in outer)
            ratio = " ".join(f"{value:.4f}" for value in over_ten(squares))
            ten = float(squares[SIDES == 100.0][0])
            print(f"{energy:g} MeV, {part:g} R, {label:8s}: beyond {told} %; over 10 x 10 {ratio}; 10 x 10 {ten:.4f}")


def extract(tables: dict[float, dict[str, np.ndarray]], path: Path) -> None:
    """Write the simulated shares at five depths of every energy as comma-separated values."""
    names = [f"beyond_{radius:g}_mm" for radius in RADII] + [f"square_{side / 10:g}_cm" for side in SIDES]
    lines = [",".join(["energy_MeV", "depth_mm", *names])]
    for energy, table in tables.items():
        for part in JUDGED:
            depth, half = part * mean_range(energy), averaged_over(part, mean_range(energy))
            near = [float(at(table, "depth", depth, half))]
            shares = [value for name in ("beyond", "square") for value in at(table, name, depth, half)]
            lines.append(",".join([f"{energy:g}", f"{near[0]:.2f}", *(f"{value:.5f}" for value in shares)]))
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")


def draw(tables: dict[float, dict[str, np.ndarray]], path: Path) -> None:
    """Draw the dose in squares over that of the 10x10 against depth, at energies that no number was fitted to."""
    figure = Figure(figsize=(11.0, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(tables), sharey=True)
    for axis, (energy, table) in zip(np.atleast_1d(axes), tables.items(), strict=True):
        layer, reach = machine(energy).entry(0), mean_range(energy)
        depths = table["depth"][table["depth"] < 1.005 * reach]
        for colour, side in (("C0", 20.0), ("C1", 40.0), ("C2", 60.0)):
            column = SIDES.tolist().index(side)
            theirs = [over_ten(squares)[column] for squares in table["square"][: depths.size]]
            axis.plot(
                depths, theirs, ".", color=colour, markersize=3, label=f"MCsquare, {side / 10:g} x {side / 10:g} cm"
            )
            for style, halo in (("-", "own"), (":", "soukup")):
                ours = [over_ten(of_layer(layer, z, halo)[0])[column] for z in depths]
                axis.plot(depths, ours, style, color=colour, linewidth=1.6)
        axis.set_title(f"{energy:g} MeV, spots of 3 mm", fontsize=10)
        axis.set_xlabel("Depth in water [mm]")
        axis.grid(color="0.9", linewidth=0.7)
    np.atleast_1d(axes)[0].set_ylabel("Dose on the axis over that of 10 x 10 cm")
    np.atleast_1d(axes)[0].legend(fontsize=9, loc="lower left", title="lines: radplan; dotted: Soukup's halo")
    figure.savefig(path, dpi=110)


def main(program: Path, folder: Path, figure: Path | None) -> None:
    """Print the table, judge it, and draw."""
    tables = {energy: simulated(energy, program, folder) for energy in sorted((*FITTED, *OTHERS))}
    for energy in FITTED:
        rows = fitted(energy, tables[energy])
        print(
            f"{energy:g} MeV, R {mean_range(energy):.1f} mm, share [%] {[round(100 * share, 2) for share, _ in rows]}"
        )
        print(f"{energy:g} MeV, R {mean_range(energy):.1f} mm, spread [mm] {[round(spread, 1) for _, spread in rows]}")
    for energy, table in tables.items():
        judged(energy, table)
    extract({energy: tables[energy] for energy in (*OTHERS, 150.0, 200.0)}, folder / "mcsquare_halo.csv")
    if figure is not None:
        draw({energy: tables[energy] for energy in OTHERS}, figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
