"""A clinic's proton plans in solid water and PMMA beside five Monte Carlo codes.

``python -m tests.benchmarks.clinical_protons CASES FIGURE``, with the folder ``dcpt-protons`` (Danish Centre for
Particle Therapy LET benchmark, Bassler et al. 2024, doi 10.5281/zenodo.10641085, CC-BY 4.0).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from radplan.beams.scanned import ScannedPlan
from radplan.commissioning.protons import particle_machine_from_beam_model
from radplan.io.dicom import read_ion_plan
from tests.physics.clinical_protons import edges, profiles, shape_error

CASES = (
    ("plan02, D", "plan02_mono", "*178320*", "plan02_field01_geoD_mono", (-82.5, -77.5)),
    ("plan01, A", "plan01_sobp", "*178319*", "plan01_field01_geoA_SOBPcent", (-2.5, 2.5)),
    ("plan01, B", "plan01_sobp", "*178319*", "plan01_field01_geoB_SOBP95", (47.5, 52.5)),
    ("plan01, C", "plan01_sobp", "*178319*", "plan01_field01_geoC_SOBP74", (49.5, 54.5)),
    ("plan03, A", "plan03_ramp_full", "ramped*", "plan03_field01_geoA_rampFull", (-2.5, 2.5)),
)
COLOURS = {"fluka_cern": "C3", "mcnp": "C1", "openshieldhit": "C0", "sh12a": "C2", "topas": "C4"}
SOLID_WATER_DENSITY = 1.032
"""Of the solid water in the codes [g/cm3]: with it LETt is LETd in the first centimetre of plan02, of one energy, in
SHIELD-HIT12A; in OpenShieldHIT with 1.035."""
NAMES = {
    "fluka_cern": "FLUKA",
    "mcnp": "MCNP",
    "openshieldhit": "OpenShieldHIT",
    "sh12a": "SHIELD-HIT12A",
    "topas": "TOPAS",
}


def codes(folder: Path, name: str) -> dict[str, dict[str, np.ndarray]]:
    """Return the columns of every code, depths in mm, each code shifted to the median R80."""
    tables = {}
    for path in sorted((folder / "monte_carlo").glob(f"{name}__*.csv")):
        lines = path.read_text(encoding="utf-8").splitlines()[1:]
        values = np.asarray([[float(cell or "nan") for cell in line.split(",")] for line in lines[1:]])
        tables[path.stem.split("__")[1]] = dict(zip(lines[0].split(","), values.T, strict=True))
    depth = 10.0 * next(iter(tables.values()))["depth_cm"]
    last = {code: edges(depth, table["DOSE.all.mat"])[0] for code, table in tables.items()}
    middle = float(np.median(list(last.values())))
    return {
        code: {
            name: np.interp(depth, depth + middle - last[code], column) for name, column in table.items()
        } | {"depth": depth}
        for code, table in tables.items()
    }  # fmt: skip


def field(path: Path) -> ScannedPlan:
    """Return the first field of a plan, shot from above."""
    plan = read_ion_plan(path)
    return replace(plan, fields=(replace(plan.fields[0], gantry=0.0),), patient_position="HFS")


def all_protons(table: dict[str, np.ndarray]) -> np.ndarray | None:
    """Return LETd of all protons [keV/um]; with the medium's stopping power where a code has no other."""
    column = next((table[n] for n in ("DLET.protons.H2O", "DLET.protons.mat") if n in table), None)
    return None if column is None else column / 10.0


def track_let(table: dict[str, np.ndarray]) -> np.ndarray:
    """Return LETt of primaries in water [keV/um]: their dose times density over their fluence, in solid water."""
    dose, fluence = table["DOSE.primary.mat"], np.maximum(table["FLUENCE.primary.mat"], 1e-12)
    water = table["DLET.primary.H2O"] / np.maximum(table["DLET.primary.mat"], 1e-12)
    return SOLID_WATER_DENSITY * dose / fluence * water / 10.0


def judged(
    label: str,
    ours: dict[str, np.ndarray],
    theirs: dict[str, dict[str, np.ndarray]],
    plate: tuple[float, float],
) -> None:
    """Print a row of figures; the plate's depths [mm] are left out of LETt, as their density is another."""
    depth = next(iter(theirs.values()))["depth"]
    median = np.median([table["DOSE.all.mat"] for table in theirs.values()], axis=0)
    r80, r20 = edges(ours["depth"], ours["dose"])
    m80, m20 = edges(depth, median)
    inside = (depth >= depth[0] + 9.5) & (depth <= m80 - 3.0)
    primary = 0.05 * sum(theirs[code]["DLET.primary.H2O"] for code in ("sh12a", "openshieldhit"))
    off = (np.interp(depth, ours["depth"], ours["primary_let"]) / np.maximum(primary, 1e-9) - 1.0)[inside]
    lets = np.stack([let for let in map(all_protons, theirs.values()) if let is not None])
    solid = inside & ((depth < plate[0] - 1.0) | (depth > plate[1] + 1.0))
    tracks = 0.5 * sum(track_let(theirs[code]) for code in ("sh12a", "openshieldhit"))[solid]
    track = np.interp(depth, ours["depth"], ours["track_let"])[solid] / tracks - 1.0
    of_protons = 0.05 * sum(theirs[code]["TLET.protons.H2O"] for code in ("sh12a", "openshieldhit"))[solid]
    averaged = np.interp(depth, ours["depth"], ours["track_let_protons"])[solid] / of_protons - 1.0
    every = np.interp(depth, ours["depth"], ours["let"])
    within = ((every >= 0.95 * lets.min(axis=0)) & (every <= 1.05 * lets.max(axis=0)))[inside]
    print(
        f"{label}: R80 {r80:.2f} (median {m80:.2f}), 80-20 {r20 - r80:.2f} ({m20 - m80:.2f}), shape "
        f"{100 * shape_error(ours, depth, median):.2f} %, LETd primaries {100 * off.min():+.1f}.."
        f"{100 * off.max():+.1f} %, LETt primaries {100 * track.min():+.1f}..{100 * track.max():+.1f} %, LETt all "
        f"protons {100 * averaged.min():+.1f}..{100 * averaged.max():+.1f} %, LETd all protons "
        f"{100 * within.mean():.1f} % of bins within, outside at {depth[inside][~within].tolist()}"
    )


def draw(panels: list[tuple[str, dict[str, np.ndarray], dict[str, dict[str, np.ndarray]]]], path: Path) -> None:
    """Draw dose and LET of two fields among the codes."""
    figure = Figure(figsize=(11.6, 7.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(panels), sharex="col")
    for column, (title, ours, theirs) in enumerate(panels):
        top, low = axes[0, column], axes[1, column]
        for code, table in theirs.items():
            depth, dose = table["depth"], table["DOSE.all.mat"]
            top.plot(depth, 100 * dose / dose.max(), color=COLOURS[code], linewidth=1.0, label=NAMES[code])
            shown = (depth > depth[0] + 2) & (dose > 0.02 * dose.max())
            if (let := all_protons(table)) is not None:
                low.plot(depth[shown], let[shown], color=COLOURS[code], linewidth=1.0)
            if code in ("sh12a", "openshieldhit"):
                low.plot(
                    depth[shown],
                    table["DLET.primary.H2O"][shown] / 10,
                    color=COLOURS[code],
                    linewidth=1.0,
                    linestyle="--",
                )
                low.plot(depth[shown], track_let(table)[shown], color=COLOURS[code], linewidth=1.0, linestyle=":")
        shown = ours["dose"] > 0.02 * ours["dose"].max()
        top.plot(ours["depth"], 100 * ours["dose"] / ours["dose"].max(), color="black", linewidth=1.8, label="radplan")
        low.plot(ours["depth"][shown], ours["let"][shown], color="black", linewidth=1.8, label="LETd of all protons")
        low.plot(
            ours["depth"][shown],
            ours["primary_let"][shown],
            color="black",
            linewidth=1.8,
            linestyle="--",
            label="LETd of primaries",
        )
        low.plot(
            ours["depth"][shown],
            ours["track_let"][shown],
            color="black",
            linewidth=1.8,
            linestyle=":",
            label="LETt of primaries",
        )
        top.set_title(title, fontsize=10)
        low.set_ylim(0.0, 6.0)
        low.set_xlabel("Depth from the isocentre [mm]")
        for place in (top, low):
            place.grid(color="0.9", linewidth=0.7)
    axes[0, 0].set_ylabel("Dose, maximum = 100 %")
    axes[1, 0].set_ylabel("LET in water [keV/um]")
    axes[0, 0].legend(fontsize=9, loc="upper left")
    axes[1, 0].legend(fontsize=9, loc="upper left", title="black: radplan")
    figure.suptitle(
        "Monte Carlo: DCPT LET benchmark (Bassler et al. 2024, CC-BY 4.0), each code shifted to the median R80"
    )
    figure.savefig(path, dpi=110)


def main(folder: Path, figure: Path) -> None:
    """Print a row for each field, and draw two of them."""
    panels = []
    for label, place, pattern, name, plate in CASES:
        plan = field(next((folder / place).glob(pattern)))
        machine = particle_machine_from_beam_model(folder / "beam_model" / "beam_model_v2.csv", energies=plan.energies)
        ours, theirs = profiles(plan, machine, plate), codes(folder, name)
        isocentre = float(plan.fields[0].isocenter[1])
        judged(label, ours, theirs, (plate[0] - isocentre, plate[1] - isocentre))
        if label in ("plan02, D", "plan01, A"):
            panels.append((f"{label}: {plan.name}", ours, theirs))
            if len(panels) == 2:
                draw(panels, figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
