"""From the files of a tank session to a linac and its report: what the command line and scripts call."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from radplan import __version__
from radplan.commissioning.photon_fit import Commissioning, fit_photons
from radplan.commissioning.tank import TankData
from radplan.io.staging import NOTICE
from radplan.io.tank import read_tank
from radplan.machines import write_photon_machine

Files = str | Path | Iterable[str | Path]


def commission_photons(
    tank: Files | TankData,
    name: str = "commissioned",
    energy: float | None = None,
    start: str | None = None,
    factors_ssd: float = 900.0,
    factors_depth: float = 100.0,
    incomplete: bool = False,
) -> Commissioning:
    """Return a photon linac fitted to the curves and output factors of a water tank.

    Parameters
    ----------
    tank : path-like, several, or TankData
        PTW ``.mcc`` and ``.csv`` files, or folders of them.
    name : str
        Of the machine.
    energy : float, optional
        Which beam [MV]; needed where the files hold several.
    start : str, optional
        The generic model to begin with; that of the nearest energy when left out.
    factors_ssd, factors_depth : float
        Where output factors of a table by field and energy were measured [mm].
    incomplete : bool
        Whether a fit may go on without a depth dose and profiles in both directions.

    Returns
    -------
    Commissioning
        ``machine`` serves every engine; ``parameters``, ``curves``, ``factors`` and ``undetermined`` are its report.

    Raises
    ------
    FileError
        When a file cannot be read.
    InputError
        When energies differ or the data are too few.
    """
    if isinstance(tank, TankData):
        return fit_photons(tank, name, start, incomplete)
    paths = [tank] if isinstance(tank, str | Path) else list(tank)
    fitted = fit_photons(read_tank(paths, energy, factors_ssd, factors_depth), name, start, incomplete)
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in _files(paths)}
    told = {**fitted.machine.provenance, "files": files, "radplan": __version__}
    return replace(fitted, machine=replace(fitted.machine, provenance=told))


def _files(paths: list[str | Path]) -> list[Path]:
    given = [Path(path) for path in paths]
    inner = [file for path in given if path.is_dir() for file in sorted(path.iterdir()) if file.is_file()]
    return [path for path in given if path.is_file()] + inner


def save_commissioning(fitted: Commissioning, folder: Path) -> list[Path]:
    """Write the machine file, a report to read, the same as plain data, and all curves; returns the files."""
    machine = folder / f"{fitted.machine.name}.npz"
    write_photon_machine(fitted.machine, machine)
    report = folder / "report.md"
    report.write_text("\n".join(report_lines(fitted)) + "\n", encoding="utf-8")
    data = folder / "report.json"
    data.write_text(json.dumps({"notice": NOTICE, **fitted.machine.provenance}, indent=2) + "\n", encoding="utf-8")
    curves = folder / "curves.csv"
    with curves.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["curve", "position_mm", "measured", "calculated"])
        for fit in fitted.curves:
            for row in zip(fit.scan.position.tolist(), fit.measured.tolist(), fit.calculated.tolist(), strict=True):
                table.writerow([fit.scan.label, *(f"{value:.5g}" for value in row)])
    return [machine, report, data, curves]


def report_lines(fitted: Commissioning) -> list[str]:
    """Return the report in Markdown: parameters, agreement, and what stays open."""
    lines = [
        f"# {fitted.machine.name}: {fitted.data.energy:g} MV fitted to a water tank",
        "",
        f"{NOTICE}. Begun from {fitted.machine.provenance['start']}; all curves calculated {fitted.evaluations} times.",
        "",
        "| parameter | fitted | one standard deviation | usual | determined? |",
        "|---|---|---|---|---|",
    ]
    for p in fitted.parameters:
        told = "yes" if p.determined else "hardly"
        lines.append(
            f"| {p.name} | {p.value:.4g} {p.unit} | {p.uncertainty:.2g} | {p.usual:.4g} ± {p.spread:.2g} | {told} |"
        )
    lines += ["", "| curve | agreement |", "|---|---|"]
    for fit in fitted.curves:
        lines.append(f"| {fit.scan.label} | {agreement_text(fit.figures)} |")
    for factor in fitted.factors:
        lines.append(
            f"| {factor.factor.label} | measured {factor.factor.value:.3f}, calculated {factor.calculated:.3f} "
            f"({factor.percent:+.2f} %) |"
        )
    lines += ["", "## What the measurements do not tell", ""]
    lines += [f"- {sentence}" for sentence in fitted.undetermined]
    if fitted.data.notes:
        lines += ["", "## Left out", ""]
        lines += [f"- {note}" for note in fitted.data.notes]
    return lines


def agreement_text(figures: dict[str, float]) -> str:
    """Return what is judged of a curve in words."""
    if "before" in figures:
        return f"beyond the maximum {figures['beyond_percent']:.2f} %, before it {figures['before']:.2f} of 2 % or 1 mm"
    return (
        f"inside {figures['inside_percent']:.2f} %, edges {figures['edges_mm']:.2f} mm, penumbra "
        f"{figures['penumbra_mm']:+.2f} mm, outside {figures['outside_percent']:.2f} %"
    )
