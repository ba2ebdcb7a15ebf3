"""Slabs of lung and bone beside a photon Monte Carlo: correction factors on the axis, with and without density scaling.

    RADPLAN_MC_PYTHON=PYTHON python -m tests.benchmarks.heterogeneity [--histories N] [--folder FOLDER] [--figure PNG]

PYTHON is an interpreter that can import pyradmc 0.2.1 and warp, see `tests.benchmarks.heterogeneity_mc`; four phantoms
of 1e7 histories take about 10 minutes of processor time. Runs found in FOLDER are not made again.

A correction factor is the dose in the phantom over that in water at the same depth, both of one code, so that beam
quality and calibration cancel. The Monte Carlo dose on the axis of a field is the integral over the field of the dose
of a pencil; its uncertainty is the spread of the factor over ten independent batches, whose random numbers phantom and
water share.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

import radplan as rp
from radplan.beams import Beams
from radplan.engines import PhotonPencilBeam
from radplan.geometry import Grid
from radplan.patient import CT, HUTable, Patient, Structure, Structures
from tests.benchmarks.heterogeneity_mc import BONE_DENSITY, RING_EDGES_CM, SLABS, SSD_MM, STEP_MM, depth_density

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SAD = 1000.0
FIELDS = (30.0, 100.0)
"""Square fields in the isocentre plane, 100 mm below the surface [mm]."""

MORE_FIELDS = (20.0, 50.0, 200.0)
"""Fields beside which nothing was chosen [mm]."""

BONE_ELECTRONS = 0.9391 * BONE_DENSITY
"""Electron density of that bone relative to water; 0.9391 are its electrons per gram over those of water."""

DEEPEST = 300.0
"""Depth up to which is compared [mm]."""


@dataclass(frozen=True)
class Curve:
    """Correction factors against depth: of the Monte Carlo with its uncertainty, of the engine, and with the option."""

    depth: np.ndarray
    simulated: np.ndarray
    error: np.ndarray
    plain: np.ndarray
    scaled: np.ndarray


def relative_density(phantom: str) -> np.ndarray:
    """Return the electron density relative to water of every depth bin."""
    density = depth_density(phantom)
    return np.where(density == BONE_DENSITY, BONE_ELECTRONS, density)


@cache
def engine_dose(phantom: str, field: float, scaled: bool) -> np.ndarray:
    """Return radplan's dose on the axis at the centres of the depth bins, calculated on the fly."""
    density, across, width = relative_density(phantom), 41, 10.0
    grid = Grid((across, density.size, across), (width, STEP_MM, width), (-200.0, STEP_MM / 2, -200.0))
    table = HUTable("density in thousandths", (0.0, 4000.0), (0.0, 4.0))
    hu = np.broadcast_to(1000.0 * density[None, :, None], grid.shape)
    body = Structure.from_mask("BODY", grid, np.ones(grid.shape, bool), role="external")
    patient = Patient(phantom, CT(grid, hu), Structures([body]), hu_table=table)
    machine = rp.load_machine("generic_photon_6mv")
    places = np.arange(2.5 - field / 2, field / 2, 5.0)
    bixels = np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2)
    beams = Beams.from_rays(
        [bixels], gantry=0.0, isocenter=(0.0, SAD - SSD_MM, 0.0), sad=SAD, bixel_width=5.0, machine=machine.name
    )
    axis = np.arange(grid.size).reshape(grid.shape)[across // 2, :, across // 2]
    engine = PhotonPencilBeam(lateral_cutoff=300.0, density_scaling=scaled)
    dij = rp.dose_influence(
        patient, beams, machine, grid=grid, engine=engine, stored=False, dtype="float64", voxels=np.sort(axis)
    )
    return np.asarray(dij.forward(np.ones(beams.count))["physical_dose"])[0]


def simulated_dose(kernels: np.ndarray, field: float) -> np.ndarray:
    """Return the dose on the axis (batches, depths) of a divergent square field from a pencil's dose in rings."""
    depth = (np.arange(kernels.shape[1]) + 0.5) * STEP_MM
    edges = 10.0 * RING_EDGES_CM
    within = np.cumsum(kernels.astype(np.float64) * np.pi * np.diff(edges**2), axis=2)
    within = np.concatenate([np.zeros((*within.shape[:2], 1)), within], axis=2)
    angle = (np.arange(200) + 0.5) / 200 * np.pi / 4
    dose = np.empty(kernels.shape[:2])
    for i, below in enumerate(depth):
        reach = np.minimum(field / 2 * (SSD_MM + below) / SAD / np.cos(angle), edges[-1])
        for b in range(kernels.shape[0]):
            dose[b, i] = np.interp(reach**2, edges**2, within[b, i]).mean() * (SSD_MM / (SSD_MM + below)) ** 2
    return dose


def simulate(phantom: str, histories: float, folder: Path, python: str | None) -> np.ndarray:
    """Return the Monte Carlo dose of a phantom's pencil, made where it is not there yet."""
    file = folder / f"{phantom}.npz"
    if not file.exists():
        if not python:
            raise SystemExit(f"{file} not found and RADPLAN_MC_PYTHON not set: see the head of this file")
        script = str(HERE / "heterogeneity_mc.py")
        subprocess.run([python, script, phantom, str(histories), str(file)], check=True, cwd=ROOT)
    return np.load(file)["dose"]


def compared(phantom: str, field: float, kernels: dict[str, np.ndarray]) -> Curve:
    """Return the correction factors of a phantom and a field, Monte Carlo and engine."""
    simulated, water = (simulated_dose(kernels[name], field) for name in (phantom, "water"))
    factor = simulated.mean(axis=0) / water.mean(axis=0)
    spread = (simulated - factor * water) / water.mean(axis=0)
    error = spread.std(axis=0, ddof=1) / np.sqrt(len(spread))
    ours = [engine_dose(phantom, field, on) / engine_dose("water", field, False) for on in (False, True)]
    depth = (np.arange(factor.size) + 0.5) * STEP_MM
    return Curve(depth, factor, error, *ours)


def parts(phantom: str) -> dict[str, tuple[float, float]]:
    """Return the depths that are told apart [mm]."""
    begin, end, _ = SLABS[phantom]
    return {
        "before": (0.0, begin),
        "inside": (begin, end),
        "5 mm behind": (end, end + 5.0),
        "beyond": (end + 5.0, DEEPEST),
    }


def centimetres(curve: Curve, low: float, high: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return depth, both differences [%] and the uncertainty [%], in means over at most 10 mm from `low` on."""
    rows = []
    for start in np.arange(low, high, 10.0):
        seen = (curve.depth > start) & (curve.depth < min(start + 10.0, high))
        differences = [100 * (ours[seen] / curve.simulated[seen] - 1).mean() for ours in (curve.plain, curve.scaled)]
        sigma = 100 * np.sqrt((curve.error[seen] ** 2).sum()) / seen.sum() / curve.simulated[seen].mean()
        rows.append([curve.depth[seen].mean(), *differences, sigma])
    return tuple(np.asarray(rows).T)


def table(curves: dict[tuple[str, float], Curve]) -> None:
    """Print the largest difference of every part, in means over 1 cm."""
    print("| slab, field | part | without | density scaling | Monte Carlo, one standard deviation |")
    print("|---|---|---|---|---|")
    for (phantom, field), curve in curves.items():
        for part, (low, high) in parts(phantom).items():
            _, plain, scaled, sigma = centimetres(curve, low, high)
            first, second = (f"{d[np.argmax(np.abs(d))]:+.1f} %" for d in (plain, scaled))
            print(f"| {phantom}, {field / 10:g} x {field / 10:g} | {part} | {first} | {second} | {sigma.max():.1f} % |")


def draw(curves: dict[tuple[str, float], Curve], path: Path) -> None:
    """Draw factors and differences of lung and bone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 7.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2, sharex=True, height_ratios=(1.35, 1.0))
    for column, phantom in enumerate(("lung", "bone")):
        begin, end, density = SLABS[phantom]
        above, below = axes[:, column]
        for plot in (above, below):
            plot.axvspan(begin, end, color="0.92", zorder=0)
            plot.grid(color="0.9", linewidth=0.6)
        below.axhspan(-3.0, 3.0, color="#d9ead3", zorder=1)
        for field, color in zip(FIELDS, ("#c0392b", "#1f5fa8"), strict=True):
            curve, name = curves[phantom, field], f"{field / 10:g} x {field / 10:g}"
            shown = curve.depth < DEEPEST
            above.errorbar(
                curve.depth[shown], curve.simulated[shown], curve.error[shown], fmt=".", ms=3.5, lw=0.8, color=color,
                alpha=0.55, label=f"{name}, Monte Carlo",
            )  # fmt: skip
            above.plot(curve.depth[shown], curve.plain[shown], "--", color=color, lw=1.3, label=f"{name}, without")
            above.plot(curve.depth[shown], curve.scaled[shown], color=color, lw=1.8, label=f"{name}, density scaling")
            pieces = [centimetres(curve, *span) for span in parts(phantom).values()]
            depth, plain, scaled, sigma = np.concatenate(pieces, axis=1)
            below.plot(depth, plain, "--", color=color, lw=1.3)
            below.errorbar(depth, scaled, sigma, color=color, lw=1.8, elinewidth=0.9)
        above.set_title(f"{phantom}, {density:g} g/cm³, from {begin:g} to {end:g} mm in water", fontsize=11)
        below.set_xlabel("depth [mm]")
        below.set_xlim(0.0, DEEPEST)
    axes[0, 0].set_ylabel("dose over dose in water")
    axes[1, 0].set_ylabel("radplan over Monte Carlo - 1 [%]")
    axes[0, 1].legend(fontsize=8, loc="upper right", ncols=2)
    axes[0, 1].set_ylim(0.87, 1.08)
    axes[1, 0].set_ylim(-8.0, 28.0)
    axes[1, 1].set_ylim(-6.0, 9.0)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description="Slabs of lung and bone beside a photon Monte Carlo.")
    parser.add_argument("--histories", type=float, default=1e7)
    parser.add_argument("--folder", type=Path, help="where Monte Carlo runs are kept")
    parser.add_argument("--figure", type=Path, help="PNG to write")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        python = os.environ.get("RADPLAN_MC_PYTHON")
        kernels = {name: simulate(name, options.histories, folder, python) for name in SLABS}
    curves = {(name, field): compared(name, field, kernels) for name in ("lung", "bone") for field in FIELDS}
    table(curves)
    print("\nPhantoms and fields beside which nothing was chosen:\n")
    others = [("blind", field) for field in FIELDS] + [(n, f) for n in ("lung", "bone") for f in MORE_FIELDS]
    table({(name, field): compared(name, field, kernels) for name, field in others})
    if options.figure:
        draw(curves, options.figure)
        sys.stdout.write(f"\n{options.figure}\n")


if __name__ == "__main__":
    main()
