"""Refinement of phantom, real and synthetic patients: best score beside the first plan's and the published policy's.

    python -m tests.benchmarks.refinement ../shared/cases --out refinement

Cases: TG-119's C-shape, the thorax of thorax-imrt, five synthetic patients of each site (seed 20251, from which nothing
was tuned), and OpenKBP validation patients with `--openkbp`. Each figure shows every plan's score, the losing ones too.
Cases that are already in the output are not planned again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import radplan as rp
from radplan.autoplan.cohort.generate import GENERATORS, draw
from radplan.autoplan.planner import template_beams
from radplan.autoplan.protocol import Protocol, load_protocol, understand
from radplan.autoplan.refine import published, refine
from radplan.engines import ENGINES
from radplan.patient import Patient
from radplan.plan import Plan
from radplan.viz.refinement import save_refinement_figure

SEED, COUNT = 20251, 5
Case = tuple[Callable[[], Patient], str]


def cases(folder: Path, openkbp: int) -> dict[str, Case]:
    """Return how each case is read, and by which protocol it is planned."""
    known: dict[str, Case] = {"TG-119 C-shape": (lambda: rp.load_patient("tg119"), "tg119")}
    for site, protocol in (("pelvis", "prostate"), ("thorax", "lung")):
        for index in range(COUNT):
            known[f"{site} {SEED}/{index}"] = (
                lambda site=site, index=index: draw(GENERATORS.get(site)(), SEED, index)[0],
                protocol,
            )
    known["thorax-imrt"] = (lambda: rp.load_patient(folder / "thorax-imrt"), "oesophagus")
    paths = sorted((folder / "openkbp/full/validation").glob("pt_*.npz"), key=lambda path: int(path.stem[3:]))
    for path in paths[:openkbp]:
        known[path.stem] = (lambda path=path: rp.load_patient(path), "head_neck")
    return known


def coverage(plan: Plan, protocol: Protocol) -> float:
    """Return the dose at the volume that the protocol covers in its first target [Gy]."""
    target = next(name for name in protocol.targets if name in plan.patient.structures)
    metric = f"D{protocol.normalise['percent']:g}"
    return float(plan.metrics(plan.prescribed, [target], [metric])[target][metric])


def refined(read: Callable[[], Patient], protocol: Protocol, figure: Path) -> dict[str, Any]:
    """Plan a case by both searches, draw its curve, and return what is told of it."""
    patient = understand(read(), protocol).patient
    machine = rp.load_machine(protocol.machine)
    began = time.process_time()
    beams = template_beams(patient, protocol, machine)
    engine = ENGINES.get("photon_pencil_beam")(lateral_cutoff=protocol.lateral_cutoff)
    dij = rp.dose_influence(patient, beams, machine, grid=protocol.grid, engine=engine)
    ours = refine(patient, protocol, dij)
    seconds = time.process_time() - began
    theirs = published(patient, protocol, dij)
    names = [iterate.policy for iterate in ours.iterates]
    save_refinement_figure(ours.curve(), names, ours.best.score.maximum, figure)
    return {
        "curve": ours.curve(),
        "policies": names,
        "published": theirs.curve(),
        "maximum": ours.best.score.maximum,
        "gain": ours.gain,
        "coverage": [coverage(plan, protocol) for plan in (ours.first, ours.plan)],
        "seconds": seconds,
        "items": ours.best.score.to_spec()["items"],
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Return all cases as a Markdown table, the median gain last."""
    lines = [
        "| case | first | best | published policy | of | gain [% of the maximum] | coverage first; best [Gy] | s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {row['curve'][0]:.1f} | {max(row['curve']):.1f} | {max(row['published']):.1f} | "
        f"{row['maximum']:.0f} | {row['gain']:.1f} | {row['coverage'][0]:.2f}; {row['coverage'][1]:.2f} | "
        f"{row['seconds']:.1f} |"
        for name, row in rows.items()
    ]
    rising = sum(max(row["curve"]) > row["curve"][0] for row in rows.values())
    level = sum(max(row["curve"]) >= max(row["published"]) for row in rows.values())
    middle = statistics.median(row["gain"] for row in rows.values())
    lines.append(
        f"\nabove the first plan in {rising}, at least the published policy's in {level} of {len(rows)}; "
        f"median gain {middle:.1f} %"
    )
    return "\n".join(lines)


def main() -> None:
    """Plan all cases and write the table, the curves and their data."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--openkbp", type=int, default=0, help="how many OpenKBP validation patients")
    parser.add_argument("--only", default="", help="cases whose names begin so")
    parser.add_argument("--out", type=Path, default=Path("refinement"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "refinement.json"
    rows = json.loads(file.read_text()) if file.exists() else {}
    for name, (read, protocol) in cases(options.folder, options.openkbp).items():
        if name in rows or not name.startswith(options.only):
            continue
        figure = options.out / f"{name.replace(' ', '_').replace('/', '_')}.png"
        rows[name] = refined(read, load_protocol(protocol), figure)
        file.write_text(json.dumps(rows, indent=1))
        row = rows[name]
        curve = ", ".join(f"{value:.1f}" for value in row["curve"])
        print(f"{name}: {curve} of {row['maximum']:.0f} [{row['seconds']:.0f} s]", flush=True)
    text = table(rows)
    (options.out / "refinement.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
