"""The command ``radplan recalc``: a photon plan calculated again from its leaves, jaws and monitor units."""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radplan.errors import InputError

if TYPE_CHECKING:
    from radplan.recalc import Recalculation


def add_recalc(verbs: Any) -> None:
    """Add the command to the parser of all commands."""
    recalc = verbs.add_parser(
        "recalc",
        help="calculate an RTPLAN's dose again and compare it with a reference",
        description="Calculate the dose of a photon RTPLAN of any system from its leaves, jaws and monitor units: "
        "RTDOSE, DVHs, figures, and a comparison with a reference. Doses are those of the course.",
    )
    recalc.add_argument("plan", metavar="RTPLAN", help="the plan: static fields, sliding windows, arcs")
    recalc.add_argument(
        "--patient", required=True, metavar="P", help="DICOM folder, or cylinder, box, tg119 to move the plan into"
    )
    recalc.add_argument(
        "--machine", metavar="M", help="built-in name or file (default: the generic linac of its energy)"
    )
    recalc.add_argument("--mlc", metavar="MLC", help="collimator (default: the known one with the plan's leaves)")
    recalc.add_argument(
        "--calibration",
        choices=("machine", "isocentric"),
        default="machine",
        help="1 cGy/MU at d_max of 10x10: at SSD 100 cm (built-in machines), or with that point in the isocentre",
    )
    recalc.add_argument("--grid", nargs="+", type=float, default=[3.0], metavar="MM", help="dose grid (default 3)")
    recalc.add_argument("--fractions", type=int, metavar="N", help="number of fractions (default: the plan's)")
    recalc.add_argument("--reference", nargs="+", metavar="FILE", help="RTDOSE or NRRD dose, DVH table, or one of each")
    recalc.add_argument(
        "--names", nargs="+", default=[], metavar="OURS=THEIRS", help="what the DVH table calls our structures"
    )
    recalc.add_argument(
        "--fit-factor",
        nargs="?",
        const=True,
        default=False,
        metavar="STRUCTURE",
        help="give the factor that makes the mean dose of the largest target, or of STRUCTURE, agree",
    )
    recalc.add_argument("--skin", type=float, default=0.0, metavar="MM", help="judge gamma this far below the skin")
    recalc.add_argument("--gamma", nargs=2, type=float, metavar=("PERCENT", "MM"), help="criteria (default 3 3)")
    recalc.add_argument("--water", action="store_true", help="fill the external contour with water; needs no images")
    recalc.add_argument(
        "--supports", action="store_true", help="let what the CT shows outside the external contour attenuate"
    )
    recalc.add_argument("--allow-other-frame", action="store_true", help="take a plan of another frame of reference")
    recalc.add_argument("--gantry-steps", type=int, default=1, metavar="N", help="gantry angles per arc segment")
    recalc.add_argument("--device", default="numpy", metavar="D", help="where to calculate: numpy, torch:cuda:0, ...")
    recalc.add_argument("--output", default="out", metavar="DIR", help="folder for the results (default out)")
    recalc.add_argument("--no-figures", action="store_true", help="write no png files")
    recalc.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Everything from the files to the files."""
    from radplan.analysis.gamma import GammaCriteria
    from radplan.engines import ApertureOptions
    from radplan.recalc import SceneOptions, recalculate, save_recalculation
    from radplan.viz import figures_available

    logging.basicConfig(format="radplan: %(levelname)s: %(message)s", level=logging.WARNING)
    start = time.perf_counter()
    print(f"calculating the dose of {parsed.plan} ...", flush=True)
    found = recalculate(
        parsed.plan,
        parsed.patient,
        machine=parsed.machine,
        mlc=parsed.mlc,
        calibration=parsed.calibration,
        grid=_spacing(parsed.grid),
        options=ApertureOptions(gantry_steps=parsed.gantry_steps),
        fractions=parsed.fractions,
        reference=parsed.reference,
        names=_names(parsed.names),
        fit_factor=parsed.fit_factor,
        gamma=None if parsed.gamma is None else GammaCriteria(*parsed.gamma),
        skin=parsed.skin,
        scene=SceneOptions(parsed.water, parsed.supports, parsed.allow_other_frame),
        device=parsed.device,
    )
    _tell(found)
    seconds = {"seconds": round(time.perf_counter() - start, 2), "processor_seconds": round(time.process_time(), 2)}
    given = {"rtplan": Path(parsed.plan).name, "reference": [Path(p).name for p in parsed.reference or []]}
    paths = list(save_recalculation(found, parsed.output, {**given, **seconds}))
    if not parsed.no_figures and figures_available():
        from radplan.viz.recalc import save_recalculation_figures

        paths += save_recalculation_figures(found, parsed.output)
    elif not parsed.no_figures:
        print("figures: none, matplotlib is not installed (pip install 'radplan[viz]')")
    print(f"\nin {Path(parsed.output).resolve()}: {', '.join(path.name for path in paths)}")
    print(f"{time.perf_counter() - start:.0f} s, {time.process_time():.0f} s of processor time")
    return 0


def _spacing(given: list[float]) -> float | tuple[float, float, float]:
    if len(given) == 1:
        return given[0]
    if len(given) != 3:
        raise InputError(f"--grid takes one spacing or x y z, got {len(given)} numbers")
    return given[0], given[1], given[2]


def _names(given: list[str]) -> dict[str, str]:
    """Return OURS=THEIRS pairs as a mapping."""
    found = {}
    for text in given:
        ours, sign, theirs = text.partition("=")
        if not (sign and ours and theirs):
            raise InputError(f"--names takes OURS=THEIRS pairs, got {text!r}; quote names with blanks")
        found[ours] = theirs
    return found


def _tell(found: Recalculation) -> None:
    """Print what was calculated, and how it compares."""
    from radplan.recalc.comparison import METRICS
    from radplan.recalc.recalculate import control_points

    delivery, comparison = found.delivery, found.comparison
    machines = ", ".join(found.machine_names)
    print(f"plan {delivery.name}: {delivery.mu:.1f} MU a fraction, {found.fractions} fractions, {machines}")
    for field in control_points(found):
        print(
            f"  {field['number']:>3} {field['name']}: {field['technique']}, {field['mu']:.2f} MU, "
            f"{field['control_points']} control points, {field['mlc'] or 'no leaves'}"
        )
    for note in found.notes:
        print(f"note: {note}")
    if comparison is None:
        for name, values in found.plan.metrics().items():
            print(f"{name:<24} mean {values['Dmean']:7.2f} Gy, maximum {values['Dmax']:7.2f} Gy")
        return
    factor = comparison.factor
    heads = "".join(f"{kind:>22}" for kind in METRICS)
    print(f"\n{'[Gy] ours; reference':<24}{heads}")
    for row in comparison.rows:
        cells = (
            f"{row.ours[kind]:8.2f};{row.reference[kind]:6.2f} ({row.difference(kind, factor or 1.0):+.2f})"
            for kind in METRICS
        )
        print(f"{row.structure:<24}" + "".join(f"{cell:>22}" for cell in cells))
    if factor is not None:
        print(
            f"in brackets the difference after the factor {factor:.4f}, which fits the mean of {comparison.fitted_to}"
        )
    else:
        print("in brackets the difference")
    if comparison.gamma is not None:
        gamma = comparison.gamma
        print(f"gamma {gamma.criteria}: {gamma.passing:.2f} % of {gamma.points} points pass, no factor applied")
