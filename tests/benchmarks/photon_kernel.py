"""How far Nyholm's photon kernel is from Monte Carlo, radius by radius: the table that commissioned linacs take.

``python -m tests.benchmarks.photon_kernel FOLDER``: narrow photon beams of 6, 10 and 15 MV in water by pyRadMC (extra
``mc``). The dose of a wide beam on its axis is that of a narrow one over the wide one's area. FOLDER keeps what was
simulated, so that a second call only reads it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from radplan.engines.monte_carlo.photons import SPECTRA, pyradmc_module
from radplan.machines.generate.nyholm import NyholmKernel

COUNT, DEEP, STEP, LAYER = 81, 35, 5.0, 10.0
"""Voxels across and down, and their sizes [mm]."""
HISTORIES = {6: 1_000_000, 10: 600_000, 15: 600_000}
"""Photons of a batch, by nominal energy [MV]."""
BATCHES = 10
RADII = np.asarray([15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 130.0, 160.0, 200.0])
"""Of the table [mm]."""
DEPTHS = np.asarray([10.0, 20.0, 30.0, 50.0, 100.0, 150.0, 200.0, 300.0])
"""Of the table [mm]."""
SIDES = np.asarray([30.0, 50.0, 100.0, 150.0, 200.0])
"""Sides of squares that are told [mm]."""


def simulated(energy: int, folder: Path) -> dict[str, np.ndarray]:
    """Return dose by batch and layer in disks of `RADII` and squares of `SIDES` around a beam of one voxel's width."""
    path = folder / f"pyradmc_{energy}mv.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(path, **_run(energy))
    with np.load(path) as stored:
        return dict(stored)


def _run(energy: int) -> dict[str, np.ndarray]:
    pyradmc = pyradmc_module()
    shape = (COUNT, DEEP, COUNT)
    voxels = pyradmc.VoxelGrid(
        shape=shape,
        spacing=(STEP / 10, LAYER / 10, STEP / 10),
        origin=(-0.05 * COUNT * STEP, 0.0, -0.05 * COUNT * STEP),
        density=np.ones(shape),
        material=np.zeros(shape, dtype=np.int32),
    )
    sections = pyradmc.AnalyticCrossSections(((pyradmc.WATER, 1.0),))
    engine = pyradmc.WarpEngine(grid=voxels, cross_sections=sections, device="cpu")
    across = (np.arange(COUNT) - COUNT // 2) * STEP
    fine = (across[:, None] + STEP * ((np.arange(5) + 0.5) / 5 - 0.5)).ravel()
    radius = np.hypot(fine[:, None], fine).reshape(COUNT, 5, COUNT, 5)
    inner = np.stack([(radius < r).mean(axis=(1, 3)) for r in RADII])
    sides = np.clip((0.5 * SIDES[:, None] - np.abs(across)) / STEP + 0.5, 0.0, 1.0)
    disks, squares = [], []
    for batch in range(BATCHES):
        result = engine.run(_beam(pyradmc, energy), HISTORIES[energy], 2, batch + 1, msc_model="gaussian")
        dose = np.asarray(result.dose, dtype=np.float64)
        disks.append(np.einsum("rxz,xyz->yr", inner, dose))
        squares.append(np.einsum("sx,sz,xyz->ys", sides, sides, dose))
    return {"disk": np.stack(disks), "square": np.stack(squares)}


def _beam(pyradmc: Any, energy: int) -> Any:
    name, filtration = SPECTRA[energy]
    published = pyradmc.ALI_ROGERS_BEAMS[name]
    spectrum = pyradmc.ali_rogers_mv(published if filtration is None else published._replace(c2=filtration))

    class Beam(pyradmc.Source):  # type: ignore[misc]
        """A parallel beam, as wide as the voxel on the axis."""

        @property
        def max_energy(self) -> float:
            return float(spectrum.max_energy)

        def emit(self, rng_state: Any) -> Any:
            raise NotImplementedError("photons are drawn in batches")

        def sample_batch(self, seed: int, history_offset: int, n: int) -> dict[str, Any]:
            rng = np.random.default_rng([seed, history_offset])
            columns = {"energy": spectrum.sample_energies(rng.random(n), rng.random(n)), "weight": np.ones(n)}
            columns |= {axis: (rng.random(n) - 0.5) * STEP / 10 for axis in "xz"}
            columns |= {"y": np.full(n, 1e-4), "ux": np.zeros(n), "uy": np.ones(n), "uz": np.zeros(n)}
            kinds = {"particle_type": np.ones(n, dtype=np.int32)}
            return kinds | {name: np.asarray(values, dtype=np.float32) for name, values in columns.items()}

    return Beam()


def at(table: np.ndarray, depth: float) -> np.ndarray:
    """Return batches of a table at a depth [mm], linear between the middles of layers."""
    place = depth / LAYER - 0.5
    low = min(max(int(place), 0), DEEP - 2)
    return table[:, low] + (place - low) * (table[:, low + 1] - table[:, low])


def quality(square: np.ndarray) -> float:
    """Return Nyholm's number of a beam, by its dose at 20 over that at 10 cm depth in a 10x10 of parallel photons."""
    ten = SIDES.tolist().index(100.0)
    ratio = at(square, 200.0)[:, ten].mean() / at(square, 100.0)[:, ten].mean()
    numbers = np.linspace(0.61, 0.79, 361)
    known = [float(np.divide(*NyholmKernel(q).square(np.asarray([200.0, 100.0]), np.asarray(50.0)))) for q in numbers]
    return float(np.interp(ratio, known, numbers))


def blurred_disk(kernel: NyholmKernel, depth: float) -> np.ndarray:
    """Return Nyholm's dose in disks of `RADII`, averaged as the simulation is, over a voxel of beam and one of dose."""
    axis = np.linspace(-STEP, STEP, 11)
    share = 1.0 - np.abs(axis) / STEP
    share /= share.sum()
    offset = np.hypot(axis[:, None], axis)[:, :, None]
    angle = (np.arange(48) + 0.5) * np.pi / 24
    means = []
    for radius in RADII:
        edge = np.sqrt(radius**2 - (offset * np.sin(angle)) ** 2) - offset * np.cos(angle)
        means.append(share @ kernel.disk(np.asarray(depth), edge).mean(axis=2) @ share)
    return np.asarray(means)


def ratios(energy: int, folder: Path) -> tuple[float, np.ndarray, np.ndarray]:
    """Return quality, and the ratio Monte Carlo over Nyholm of disks over the 10x10 and its error, depths by radii."""
    table = simulated(energy, folder)
    kernel = NyholmKernel(quality(table["square"]))
    ten, values, errors = SIDES.tolist().index(100.0), [], []
    for depth in DEPTHS:
        theirs = at(table["disk"], depth) / at(table["square"], depth)[:, [ten]]
        square = float(kernel.square(np.asarray(depth), np.asarray(50.0)))
        ratio = theirs / (blurred_disk(kernel, float(depth)) / square)
        values.append(ratio.mean(axis=0))
        errors.append(ratio.std(axis=0, ddof=1) / np.sqrt(BATCHES))
    return kernel.quality, np.asarray(values), np.asarray(errors)


def extract(folder: Path) -> None:
    """Write the dose in squares over the 10x10, between the depths of the table, as comma-separated values."""
    lines = ["energy_MV,quality,depth_mm,side_mm,over_10x10,error"]
    for energy in HISTORIES:
        square = simulated(energy, folder)["square"]
        for depth in (25.0, 75.0, 125.0, 250.0):
            share = at(square, depth) / at(square, depth)[:, [SIDES.tolist().index(100.0)]]
            for side, values in zip(SIDES, share.T, strict=True):
                error = values.std(ddof=1) / np.sqrt(BATCHES)
                lines.append(f"{energy},{quality(square):.4f},{depth:g},{side:g},{values.mean():.5f},{error:.5f}")
    (folder / "pyradmc_squares.csv").write_text("\n".join([*lines, ""]), encoding="utf-8")


def main(folder: Path) -> None:
    """Print the table, and write squares over the 10x10."""
    for energy in HISTORIES:
        number, values, errors = ratios(energy, folder)
        print(f"{energy} MV, quality {number:.4f}; radii {RADII.tolist()} mm; largest error {errors.max():.4f}")
        for depth, row in zip(DEPTHS, values, strict=True):
            print(f"  {depth:g} mm: {row.round(4).tolist()}")
    extract(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
