"""A small network that proposes fluence, trained by the cost of the dose that its fluence gives.

Random targets and organs in a box of water; five beams of 9 x 9 bixels. The network sees each beam's-eye view and knows
neither physics nor dose: what it learns comes back through `as_torch`. Run it as
``python docs/examples/train_network.py [FOLDER]``.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import radplan as rp
from radplan.ai import as_torch
from radplan.geometry.frames import isocentre_plane, world_to_beam

GANTRY, WIDTH, SIDE, FRACTIONS = (0.0, 72.0, 144.0, 216.0, 288.0), 8.0, 9, 30
TRAINING, HELD_OUT, EPOCHS = 32, 6, 40
GOALS = (
    rp.Goal("Target", rp.SquaredDeviation(60.0), weight=100.0),
    rp.Goal("Organ", rp.SquaredOverdosing(20.0), weight=20.0),
    rp.Goal("Body", rp.SquaredOverdosing(30.0), weight=10.0),
)


class Case:
    """A target, an organ beside it, what each beam sees of them, and the problem they make."""

    def __init__(self, dij: rp.Dij, beams: rp.Beams, random: np.random.Generator) -> None:
        points = dij.grid.points(dij.voxels)
        centre, axes = random.uniform(-10.0, 10.0, 3), random.uniform(12.0, 22.0, 3)
        angle, radius = random.uniform(0.0, 2.0 * np.pi), random.uniform(9.0, 13.0)
        away = np.asarray([np.cos(angle), np.sin(angle), 0.0])
        beside = centre + (1.0 / np.linalg.norm(away / axes) + radius) * away
        self.target = np.sum(((points - centre) / axes) ** 2, axis=1) <= 1.0
        self.organ = (np.linalg.norm(points - beside, axis=1) <= radius) & ~self.target
        body = ~(self.target | self.organ)
        members = {
            name: (dij.voxels[mask], None)
            for name, mask in (("Target", self.target), ("Organ", self.organ), ("Body", body))
        }
        self.problem = rp.Problem(dij, GOALS, fractions=FRACTIONS, weights=members)
        self.cost = as_torch(self.problem)
        self.views = torch.tensor(views(points, self.target, self.organ, beams, dij.grid), dtype=torch.float32)


def views(points, target, organ, beams, grid) -> np.ndarray:
    """What each beam sees in each bixel: thickness of target and organ, and whether the organ is in front."""
    edges = WIDTH * (np.arange(SIDE + 1) - 0.5 * SIDE)
    maps = np.zeros((len(beams), 3, SIDE, SIDE))
    for beam, view in zip(beams, maps, strict=True):
        local = world_to_beam(points, beam.isocenter, beam.rotation)
        x, y, _ = isocentre_plane(local, beam.sad)
        full = 50.0 * WIDTH**2 / grid.voxel_volume  # voxels in 50 mm of a bixel
        for channel, mask in enumerate((target, organ)):
            view[channel] = np.histogram2d(x[mask], y[mask], [edges, edges])[0] / full
        view[2] = np.sign(local[organ, 2].mean() - local[target, 2].mean()) * (view[1] > 0.0)
    return maps


def network() -> torch.nn.Module:
    """Three convolutions over a beam's-eye view; the same for all beams."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 24, 3, padding=1), torch.nn.SiLU(),
        torch.nn.Conv2d(24, 24, 3, padding=1), torch.nn.SiLU(),
        torch.nn.Conv2d(24, 1, 3, padding=1), torch.nn.Softplus(),
    )  # fmt: skip


def fluence(net: torch.nn.Module, case: Case, unit: float) -> torch.Tensor:
    """The weights of all bixels: beam by beam, x before y."""
    return unit * net(case.views).flatten()


def fitted(case: Case) -> tuple[np.ndarray, float]:
    """Even fluence wherever a beam sees the target, scaled to its best cost: what planning without dose would do."""
    even = (case.views[:, 0] > 0).double().numpy().ravel()
    line = case.problem.along(0.0 * even, even)
    levels = np.linspace(0.0, 4.0, 400) * float(case.problem.start.max())
    costs = [float(line(t)[0]) for t in levels]
    best = int(np.argmin(costs))
    return levels[best] * even, costs[best]


def main(folder: Path) -> None:
    began = time.process_time()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    patient, machine = rp.load_patient("box"), rp.load_machine("generic_photon_6mv")
    places = WIDTH * (np.arange(SIDE) - SIDE // 2)
    rays = [np.stack(np.meshgrid(places, places, indexing="ij"), axis=-1).reshape(-1, 2)] * len(GANTRY)
    beams = rp.Beams.from_rays(
        rays, gantry=GANTRY, isocenter=(0.0, 0.0, 0.0), sad=machine.sad, bixel_width=WIDTH, machine=machine.name
    )
    dij = rp.dose_influence(patient, beams, machine, grid=7.5)
    cases = [Case(dij, beams, random) for _ in range(TRAINING + HELD_OUT)]
    training, held_out = cases[:TRAINING], cases[TRAINING:]

    net, unit = network(), float(np.mean([float(case.problem.start.max()) for case in training]))
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    losses = []
    for _ in range(EPOCHS):
        for number in random.permutation(TRAINING):
            optimizer.zero_grad()
            training[number].cost(fluence(net, training[number], unit)).backward()
            optimizer.step()
        schedule.step()
        with torch.no_grad():  # held-out cases are looked at, never learned from
            losses.append(
                [[case.cost(fluence(net, case, unit)).item() for case in part] for part in (training, held_out)]
            )

    found = [np.mean(part) for part in losses[-1]]
    even = [np.mean([fitted(case)[1] for case in part]) for part in (training, held_out)]
    solver = rp.SOLVERS.get("lbfgs")(max_iterations=60)
    solved = [solver.solve(case.problem) for case in held_out]
    best = float(np.mean([solution.value for solution in solved]))
    print(f"parameters {sum(p.numel() for p in net.parameters())}, variables {dij.variables.count}")
    print(f"mean cost of {TRAINING} training cases: even {even[0]:.0f}, network {found[0]:.0f}")
    print(f"mean cost of {HELD_OUT} held-out cases: even {even[1]:.0f}, network {found[1]:.0f}, optimised {best:.0f}")
    with torch.no_grad():
        proposals = [fluence(net, case, unit).double().numpy() for case in held_out]
    for label, weights in (
        ("even", [fitted(case)[0] for case in held_out]),
        ("network", proposals),
        ("optimised", [solution.x for solution in solved]),
    ):
        rows = [judged(dij, case, x) for case, x in zip(held_out, weights, strict=True)]
        d95, mean, spread, organ = np.mean(rows, axis=0)
        print(f"{label:<10} target D95 {d95:.1f}, mean {mean:.1f}, SD {spread:.1f} Gy; organ mean {organ:.1f} Gy")
    print(f"CPU time {time.process_time() - began:.0f} s")
    folder.mkdir(parents=True, exist_ok=True)
    draw(losses, even[1], best, dij, held_out[0], proposals[0], solved[0].x).savefig(folder / "network.png", dpi=90)


def judged(dij: rp.Dij, case: Case, x: np.ndarray) -> tuple[float, ...]:
    """D95, mean and standard deviation of the target, mean of the organ [Gy]."""
    dose = FRACTIONS * dij.forward(x)["physical_dose"][0]
    inside = dose[case.target]
    return np.percentile(inside, 5.0), inside.mean(), inside.std(), dose[case.organ].mean()


def draw(losses, even, best, dij, case, proposed, optimised) -> Figure:
    figure = Figure(figsize=(12.6, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    left, *slices = figure.subplots(1, 3, width_ratios=[1.25, 1.0, 1.0])
    epochs = np.arange(1, len(losses) + 1)
    left.semilogy(epochs, [np.mean(part[0]) for part in losses], label=f"network, {TRAINING} training cases")
    left.semilogy(epochs, [np.mean(part[1]) for part in losses], label=f"network, {HELD_OUT} held-out cases")
    left.axhline(even, color="0.5", ls="--", label="even fluence on the held-out targets")
    left.axhline(best, color="0.2", ls=":", label="each held-out case optimised, 60 iterations")
    left.set(xlabel="epoch", ylabel="mean cost", title="Learning from the cost of the dose")
    left.legend(fontsize=8)
    x, y, z = dij.grid.axes
    points = dij.grid.points(dij.voxels)
    k = int(np.argmin(np.abs(z - points[case.target, 2].mean())))
    for axes, (label, weights) in zip(
        slices, (("network, held-out case", proposed), ("optimised", optimised)), strict=True
    ):
        dose = cube(dij, FRACTIONS * dij.forward(weights)["physical_dose"][0])[k]
        shown = axes.pcolormesh(x, y, dose, cmap="turbo", vmin=0, vmax=70, shading="nearest")
        for mask, style in ((case.target, "-"), (case.organ, "--")):
            axes.contour(x, y, cube(dij, mask)[k], levels=[0.5], colors="white", linestyles=style)
        axes.set(aspect="equal", xlim=(-60, 60), ylim=(60, -60), title=label, xlabel="x [mm]")
    slices[0].set_ylabel("y [mm]")
    figure.colorbar(shown, ax=slices, label="Physical dose [Gy]")
    return figure


def cube(dij: rp.Dij, values: np.ndarray) -> np.ndarray:
    filled = np.zeros(dij.grid.size)
    filled[dij.voxels] = values
    return filled.reshape(dij.grid.shape)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1] / "figures")
