"""Run the benchmarks and print them as a table.

    python -m tests.benchmarks [photons | particles] [--peer-python PYTHON] [--device DEVICE] [--data FOLDER]

PYTHON is an interpreter that can import pyRadPlan 0.5.0 (``pip install "pyradplan==0.5.0" "pydantic<2.14"`` in an
environment of its own). Peer and radplan run in turn, each step in a process of its own. FOLDER holds matRad's
``cases/tg119/TG119.mat`` and the machines in ``cases/matrad_machines``; it defaults to RADPLAN_SHARED.
``tests/benchmarks/particles.py`` says more of the particles.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def run(python: str, *arguments: str) -> dict:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)} if python == sys.executable else dict(os.environ)
    done = subprocess.run([python, *arguments], capture_output=True, text=True, env=environment, cwd=ROOT)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return json.loads(lines[-1][7:])


def import_seconds() -> tuple[float, float]:
    def best(*arguments: str) -> float:
        taken = []
        for _ in range(7):
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=ROOT)
            taken.append(time.perf_counter() - start)
        return statistics.median(taken)

    bare = best("-c", "pass")
    return best("-c", "import radplan") - bare, best("-m", "radplan", "--help")


def row(what: str, ours: str, peer: str = "", ratio: str = "") -> None:
    print(f"| {what} | {ours} | {peer} | {ratio} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed and memory beside the peer.")
    parser.add_argument("what", nargs="?", choices=("photons", "particles"), default="photons")
    parser.add_argument("--iterations", type=int, default=500, help="of the peer's carbon optimisation")
    parser.add_argument("--peer-python", default=os.environ.get("RADPLAN_PEER_PYTHON"))
    parser.add_argument("--device", default="numpy")
    parser.add_argument("--data", default=os.environ.get("RADPLAN_SHARED", str(ROOT.parent / "shared")))
    options = parser.parse_args()
    case, machine = (
        str(Path(options.data) / p) for p in ("cases/tg119/TG119.mat", "cases/matrad_machines/photons_Generic.mat")
    )
    for needed in (case, machine):
        if not Path(needed).exists():
            raise SystemExit(f"{needed} not found: give --data or set RADPLAN_SHARED")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}", end=", ")
    print(f"load {os.getloadavg()[0]:.1f}\n")
    print("| | radplan | pyRadPlan 0.5.0 | ratio |\n|---|---|---|---|")
    if options.what == "particles":
        from tests.benchmarks.particles import particles

        particles(options.peer_python, options.data, options.device, options.iterations)
        return
    with tempfile.TemporaryDirectory() as folder:
        peer = None
        if options.peer_python:
            peer = run(options.peer_python, str(HERE / "peer_pyradplan.py"), folder)
            (Path(folder) / "result.json").write_text(json.dumps(peer))
        ours = run(sys.executable, str(HERE / "ours.py"), "dij", case, machine, options.device)
        warm = statistics.median(ours["dij_s"])
        theirs = min(peer["dij_s"]) if peer else None
        row(
            "Dij, warm",
            f"{warm:.2f} s",
            f"{theirs:.2f} s" if peer else "",
            f"{theirs / warm:.1f}" if peer else "",
        )
        row("Dij, first call in a process (kernels from cache)", f"{ours['first_s']:.2f} s")
        row("non-zeros", f"{ours['nnz'] / 1e6:.1f} M", f"{peer['nnz'] / 1e6:.1f} M" if peer else "")
        whole = run(sys.executable, str(HERE / "ours.py"), "plan", case, machine, options.device)
        row("whole plan, process time on the clock", f"{whole['total_s']:.1f} s")
        row("whole plan, peak memory", f"{whole['peak_mb']:.0f} MB", f"{peer['peak_mb']:.0f} MB" if peer else "")
        if peer:
            same = run(sys.executable, str(HERE / "ours.py"), "same_problem", folder, options.device)
            ours_s, theirs_s = same["evaluation_cpu_s"], peer["evaluation_cpu_s"]
            row(
                "objective + gradient, peer's matrix, processor time",
                f"{1e3 * ours_s:.1f} ms",
                f"{1e3 * theirs_s:.1f} ms",
                f"{theirs_s / ours_s:.1f}",
            )
            ours_s, theirs_s = same["to_their_value_cpu_s"], peer["clocks"][-1][0]
            row(
                "processor time to the peer's final objective",
                f"{ours_s:.2f} s",
                f"{theirs_s:.2f} s",
                f"{theirs_s / ours_s:.1f}",
            )
            row("peer's weights, objective", f"{same['their_value_in_ours']:.4f}", f"{peer['objective']:.4f}")
    bare, helped = import_seconds()
    row("`import radplan`", f"{bare:.2f} s")
    row("`radplan --help`", f"{helped:.2f} s")


if __name__ == "__main__":
    main()
