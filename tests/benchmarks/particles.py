"""Particles beside pyRadPlan 0.5.0 in one run: dose influence, products, and the carbon RBE optimisation.

    python -m tests.benchmarks particles [--peer-python PYTHON] [--device DEVICE] [--data FOLDER] [--iterations N]

TG119, two beams (90, 270 degrees), spots 5 mm apart, 5 mm grid, float32, matRad's machines. With a peer, radplan takes
the peer's spots, and in the optimisation the peer's own matrices, voxels and goals. The peer's optimisation of carbon
takes many minutes at its limit of 500 iterations; with ``--iterations N`` it ends after N, and the time is that to the
cost which it reached there. 0 leaves it out.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.__main__ import HERE, row, run

OURS = str(HERE / "ours_particles.py")
PEER = str(HERE / "peer_pyradplan_particles.py")


def dij_rows(radiation: str, data: str, device: str, folder: str, peer: dict | None) -> None:
    ours = run(sys.executable, OURS, "dij", data, radiation, device, *([folder] if peer else []))
    warm, images = statistics.median(ours["dij_s"]), len(ours["images"])
    theirs = min(peer["dij_s"]) if peer else None
    row(
        f"{radiation}: Dij of {images} images, warm",
        f"{warm:.2f} s",
        f"{theirs:.2f} s" if peer else "",
        f"{theirs / warm:.1f}" if peer else "",
    )
    row(
        f"{radiation}: the same, processor time",
        f"{ours['dij_cpu_s']:.2f} s",
        f"{min(peer['dij_cpu_s']):.2f} s" if peer else "",
        f"{min(peer['dij_cpu_s']) / ours['dij_cpu_s']:.1f}" if peer else "",
    )
    row(f"{radiation}: Dij, first call in a process (kernels from cache)", f"{ours['first_s']:.2f} s")
    for what in ("spots", "nnz"):
        row(f"{radiation}: {what}", f"{ours[what]}", f"{peer[what]}" if peer else "")
    row(
        f"{radiation}: peak memory with a Dij",
        f"{ours['peak_mb']:.0f} MB",
        f"{peer['dij_peak_mb']:.0f} MB" if peer else "",
    )
    row(f"{radiation}: forward and adjoint of one image", f"{1e3 * ours['one_image_s']:.0f} ms")
    row(f"{radiation}: of all {images} in one pass", f"{1e3 * ours['stored_pair_s']:.0f} ms")
    row(f"{radiation}: of all {images} on the fly, no matrix", f"{1e3 * ours['fly_pair_s']:.0f} ms")
    row(f"{radiation}: setting that up", f"{ours['fly_set_up_s']:.2f} s")


def optimisation_rows(folder: str, device: str, peer: dict) -> None:
    (Path(folder) / "result.json").write_text(json.dumps(peer))
    same = run(sys.executable, OURS, "same_problem", folder, device)
    ours_s, theirs_s = same["evaluation_cpu_s"], peer["evaluation_cpu_s"]
    row(
        "carbon: RBE-weighted cost and gradient, peer's matrices, processor time",
        f"{1e3 * ours_s:.0f} ms",
        f"{1e3 * theirs_s:.0f} ms",
        f"{theirs_s / ours_s:.1f}",
    )
    row("carbon: peer's weights, cost", f"{same['their_value_in_ours']:.4f}", f"{peer['objective']:.4f}")
    for mark, found in same["reached"].items():
        row(
            f"carbon: processor time to the peer's cost after {mark} iterations, {found['cost']:.3f}",
            f"{found['cpu_s']:.2f} s ({found['iterations']} iterations)",
            f"{found['peer_cpu_s']:.2f} s",
            f"{found['peer_cpu_s'] / found['cpu_s']:.1f}",
        )


def particles(peer_python: str | None, data: str, device: str, iterations: int) -> None:
    """Print the rows of the particle benchmark."""
    for radiation in ("protons", "carbon"):
        with tempfile.TemporaryDirectory() as folder:
            wanted = iterations if radiation == "carbon" else 0
            peer = run(peer_python, PEER, folder, radiation, str(wanted)) if peer_python else None
            dij_rows(radiation, data, device, folder, peer)
            if peer and wanted:
                optimisation_rows(folder, device, peer)
