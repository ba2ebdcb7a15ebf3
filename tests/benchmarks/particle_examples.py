"""Make the proton and the carbon plan of the documentation and hold them to what it says.

    python -m tests.benchmarks.particle_examples [--data FOLDER] [--out FOLDER]

FOLDER holds ``cases/thorax-imrt``; it defaults to RADPLAN_SHARED. Both plans take about four minutes of processor time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from radplan.cli import main as cli

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs/examples"

Bound = tuple[str, str, str, float, float]

THORAX: tuple[Bound, ...] = (
    ("rbe_x_dose", "PTV4140", "D95", 40.69, 40.71),
    ("rbe_x_dose", "PTV4140", "D2", 0.0, 1.07 * 41.4),
    ("rbe_x_dose", "LUNGS", "Dmean", 0.0, 10.0),
    ("rbe_x_dose", "HEART", "Dmean", 0.0, 17.5),
    ("rbe_x_dose", "SPINALCORD", "Dmax", 0.0, 28.0),
    ("rbe_x_dose", "LIVER", "Dmean", 0.0, 8.0),
    ("let", "PTV4140", "mean", 2.0, 4.0),
    ("rbe", "PTV4140", "mean", 1.05, 1.15),
    ("rbe", "HEART", "D2", 1.3, 2.0),
)
"""Quantity, structure, metric, lowest and highest value; the photon plan has lungs 15.0, heart 22.7, cord 29.2."""

CARBON: tuple[Bound, ...] = (
    ("rbe_x_dose", "OuterTarget", "D95", 49.99, 50.01),
    ("rbe_x_dose", "OuterTarget", "D2", 0.0, 1.05 * 50.0),
    ("rbe_x_dose", "Core", "D10", 0.0, 16.3),
    ("let", "OuterTarget", "mean", 50.0, 100.0),
    ("rbe", "OuterTarget", "mean", 2.5, 4.0),
)


def main() -> int:
    parser = argparse.ArgumentParser(description="The particle plans of the documentation.")
    parser.add_argument("--data", default=os.environ.get("RADPLAN_SHARED", str(ROOT.parent / "shared")))
    parser.add_argument("--out", default=tempfile.mkdtemp(prefix="radplan-"))
    options = parser.parse_args()
    cases = (
        ("proton_thorax", str(Path(options.data) / "cases/thorax-imrt"), THORAX),
        ("carbon_tg119", "tg119", CARBON),
    )
    missed = 0
    for name, case, bounds in cases:
        started, out = time.process_time(), Path(options.out) / name
        if cli.main(["plan", case, "--plan", str(EXAMPLES / f"{name}.yaml"), "--out", str(out)]):
            return 1
        print(f"\n| {name}, {time.process_time() - started:.0f} s of processor time | found | wanted |\n|---|---|---|")
        data = json.loads((out / "plan.json").read_text())
        tables = {data["quantity"]: data["metrics"], **data["other_metrics"]}
        for quantity, structure, metric, low, high in bounds:
            found = tables[quantity][structure][metric]
            missed += not low <= found <= high
            print(f"| {quantity} of {structure}, {metric} | {found:.2f} | {low:.2f} to {high:.2f} |")
        with np.load(out / "dose.npz") as held:
            seen = held["rbe_x_dose"] > 0.05 * data["spec"]["prescription"]
            print(f"| largest RBE where dose is above 5 % | {held['rbe'][seen].max():.2f} | above 1.1 |")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
