"""The verb ``radplan recalc``: a plan of any system calculated again from its leaves or spots and monitor units."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from radplan.cli.arguments import HuTable, Series, StructureSet, gamma_criteria, numbers, pairs, refuse, spacing
from radplan.cli.console import listening_console, print_table, show_warnings
from radplan.cli.plan import check_folder
from radplan.cli.recalc_ions import recalculated_ions
from radplan.cli.recalc_results import tell_doses, written
from radplan.errors import InputError

if TYPE_CHECKING:
    from radplan.influence import Scenarios
    from radplan.recalc import Recalculation

Texts = list[str] | None

Rtplan = Annotated[str, typer.Argument(metavar="RTPLAN", help="The plan: photon fields and arcs, or scanned ions.")]
Patient = Annotated[
    str | None, typer.Option(metavar="P", help="DICOM folder, or cylinder, box, tg119 to move the plan into.")
]
Phantom = Annotated[
    bool,
    typer.Option("--phantom", help="Check in a water cylinder: fluence of each field, point dose by factors."),
]
Point = Annotated[Texts, typer.Option(metavar="X,Y,Z", help="With --phantom: where (default: the isocentre).")]
Machine = Annotated[
    str | None, typer.Option(metavar="M", help="Built-in name or file (default: generic linac of its energy).")
]
Mlc = Annotated[
    str | None, typer.Option(metavar="MLC", help="Collimator (default: the known one with the plan's leaves).")
]
Calibration = Annotated[
    Literal["machine", "isocentric"],
    typer.Option(help="1 cGy/MU at d_max of 10x10: at SSD 100 cm (built-in machines), or in the isocentre."),
]
Grid = Annotated[Texts, typer.Option(metavar="MM", help="Dose grid spacing, one or x,y,z (default 3).")]
Fractions = Annotated[int | None, typer.Option(metavar="N", help="Number of fractions (default: the plan's).")]
Reference = Annotated[Texts, typer.Option(metavar="FILE", help="RTDOSE or NRRD dose, DVH table, or one of each.")]
Names = Annotated[Texts, typer.Option(metavar="OURS=THEIRS", help="What the DVH table calls our structures.")]
FitFactor = Annotated[
    str | None,
    typer.Option(
        metavar="[STRUCTURE]",
        help="Give the factor that makes the mean of the largest target, or STRUCTURE, agree.",
    ),
]
Skin = Annotated[float, typer.Option(metavar="MM", help="Judge gamma this far below the skin.")]
Gamma = Annotated[Texts, typer.Option(metavar="PERCENT,MM", help="Criteria (default 3,3).")]
Water = Annotated[bool, typer.Option("--water", help="Fill the external contour with water; needs no images.")]
Supports = Annotated[
    bool, typer.Option("--supports", help="What the CT shows outside the external contour attenuates.")
]
AllowOtherFrame = Annotated[
    bool, typer.Option("--allow-other-frame", help="Take a plan of another frame of reference.")
]
Density = Annotated[
    Texts, typer.Option(metavar="NAME=VALUE", help="Density of a structure relative to water (ions: stopping power).")
]
RangeShifters = Annotated[
    Texts, typer.Option("--range-shifter", metavar="ID=MM", help="Water-equivalent thickness where the plan has none.")
]
Position = Annotated[
    str, typer.Option("--patient-position", metavar="HFS", help="How the patient lies, in place of what the plan says.")
]
Scaling = Annotated[
    bool | None,
    typer.Option(
        "--density-scaling/--no-density-scaling",
        help="Photons: let the kernel be wider where density is low (default: where lungs are contoured).",
    ),
]
GantrySteps = Annotated[int, typer.Option(metavar="N", help="Gantry angles per arc segment.")]
Setup = Annotated[
    float | None, typer.Option(metavar="MM", help="Scenarios too: isocentre shifts by so much along each axis.")
]
Range = Annotated[
    float | None,
    typer.Option("--range", metavar="SHARE", help="Scenarios too: depths off by this share, as 0.035."),
]
Device = Annotated[str, typer.Option(metavar="D", help="Where to calculate: numpy, torch:cuda:0, ...")]
Out = Annotated[str, typer.Option("--out", "--output", metavar="DIR", help="Folder for the results.")]
NoFigures = Annotated[bool, typer.Option("--no-figures", help="Write no png files.")]


def command(
    rtplan: Rtplan,
    patient: Patient = None,
    phantom: Phantom = False,
    point: Point = None,
    machine: Machine = None,
    mlc: Mlc = None,
    calibration: Calibration = "machine",
    grid: Grid = None,
    fractions: Fractions = None,
    reference: Reference = None,
    names: Names = None,
    fit_factor: FitFactor = None,
    skin: Skin = 0.0,
    gamma: Gamma = None,
    water: Water = False,
    supports: Supports = False,
    allow_other_frame: AllowOtherFrame = False,
    structure_set: StructureSet = None,
    series: Series = None,
    hu_table: HuTable = None,
    density: Density = None,
    range_shifter: RangeShifters = None,
    patient_position: Position = "",
    gantry_steps: GantrySteps = 1,
    density_scaling: Scaling = None,
    setup: Setup = None,
    range_error: Range = None,
    device: Device = "numpy",
    out: Out = "out",
    no_figures: NoFigures = False,
) -> int:
    """Calculate the dose of an RTPLAN of any system: photons from leaves, jaws and MU, scanned ions from their spots.

    The folder gets RTDOSE, DVHs, figures, and a comparison with a reference; ions also RBE-weighted dose and LETd.
    Doses are those of the course.
    """
    from radplan.arrays import as_device
    from radplan.engines import ApertureOptions
    from radplan.io.dicom import is_ion_plan
    from radplan.recalc import SceneOptions

    check_folder(out)
    as_device(device)
    show_warnings()
    whose, densities = _whose(patient, phantom, point), _values(density, "--density")
    asked: dict[str, Any] = {
        "grid": spacing(grid, "--grid") or 3.0, "fractions": fractions, "device": device,
        "scenarios": _scenarios(setup, range_error), **_beside(reference, names, fit_factor, gamma, skin),
        "scene": SceneOptions(
            water, supports, allow_other_frame, None, structure_set, series, hu_table, patient_position, densities
        ),
    }  # fmt: skip
    if is_ion_plan(rtplan):
        refuse("a plan of ions", {
            "--mlc": mlc, "--calibration": calibration != "machine", "--gantry-steps": gantry_steps != 1,
            "--density-scaling": density_scaling is not None, "--phantom (give --patient cylinder)": phantom,
        })  # fmt: skip
        asked["range_shifters"] = _values(range_shifter, "--range-shifter")
        return recalculated_ions(rtplan, whose, machine, out, not no_figures, asked)
    refuse("a plan of photons", {"--range-shifter": range_shifter})
    options = ApertureOptions(gantry_steps=gantry_steps, density_scaling=density_scaling)
    asked |= {"machine": machine, "mlc": mlc, "calibration": calibration, "options": options}
    return _recalculated_photons(rtplan, whose, out, not no_figures, numbers(point, "--point"), phantom, asked)


def _recalculated_photons(
    rtplan: str,
    patient: str,
    out: str,
    figures: bool,
    point: list[float] | None,
    phantom: bool,
    given: Mapping[str, Any],
) -> int:
    """Calculate a photon plan, write it into a folder and print its figures."""
    from radplan.recalc import recalculate, save_recalculation

    with listening_console() as console:
        recalculation = recalculate(rtplan, patient, **given)
        read = rtplan, given["reference"] or ()
        paths = written(recalculation, save_recalculation, out, read, console, figures)
        _tell(recalculation)
        paths += _checked(recalculation, out, point, figures) if phantom else []
        print(f"\nin {Path(out).resolve()}: {', '.join(path.name for path in paths)}  [{console.total()}]")
    return 0


def _scenarios(setup: float | None, range_error: float | None) -> Scenarios | None:
    from radplan.influence import Scenarios

    if setup is None and range_error is None:
        return None
    return Scenarios.setup_and_range(setup or 0.0, range_error or 0.0)


def _values(given: Texts, option: str) -> dict[str, float]:
    """Return NAME=NUMBER pairs as a mapping."""
    values = {}
    for name, text in pairs(given, option).items():
        try:
            values[name] = float(text)
        except ValueError:
            raise InputError(f"{option} takes NAME=NUMBER pairs, got {name}={text}") from None
    return values


def _beside(reference: Texts, names: Texts, fit_factor: str | None, gamma: Texts, skin: float) -> dict[str, Any]:
    """Return what a comparison with a reference is told."""
    return {
        "reference": reference,
        "names": pairs(names, "--names"),
        "fit_factor": False if fit_factor is None else (fit_factor or True),
        "gamma": gamma_criteria(gamma, "--gamma"),
        "skin": skin,
    }


def _whose(patient: str | None, phantom: bool, point: Texts) -> str:
    """Return the patient that was asked for, or the phantom."""
    if patient is None and not phantom:
        raise InputError("give --patient P, or --phantom for a check in a water cylinder")
    if point and not phantom:
        raise InputError("--point is for --phantom")
    return patient or "cylinder"


def _checked(recalculation: Recalculation, out: str, point: list[float] | None, figures: bool) -> list[Path]:
    """Write and print what a check by hand needs."""
    from radplan.io.staging import staged
    from radplan.recalc.quality import save_quality_assurance
    from radplan.viz import figures_available

    with staged(out, whole=False) as partial:
        paths, doses = save_quality_assurance(recalculation, partial, point)
        names = [path.name for path in paths]
        if figures and figures_available():
            from radplan.viz.fluence import save_fluences

            names.append(save_fluences(recalculation, partial).name)
    print("\npoint dose of a fraction, D = MU x calibration x open share x Sc x Sp x TMR x off axis x inverse square")
    rows = {
        f"{dose.number} {dose.name}": {
            "MU": dose.mu,
            "open": dose.open_share,
            "side mm": dose.side,
            "depth mm": dose.depth,
            "Sc": dose.head_scatter,
            "Sp": dose.phantom_scatter,
            "TMR": dose.tmr,
            "OAR": dose.off_axis,
            "ISF": dose.inverse_square,
            "hand Gy": dose.by_hand,
            "calc Gy": dose.calculated,
        }
        for dose in doses
    }
    print_table(rows, digits=4)
    total = [sum(dose.by_hand for dose in doses), sum(dose.calculated for dose in doses)]
    print(f"all fields: by hand {total[0]:.4f} Gy, calculated {total[1]:.4f} Gy")
    shadowed = [str(dose.number) for dose in doses if dose.shadowed]
    if shadowed:
        print(f"in the shadow of leaves for most of the time, no check: field {', '.join(shadowed)} (choose --point)")
    return [Path(out, name) for name in names]


def _tell(recalculation: Recalculation) -> None:
    """Print what was calculated, and how it compares."""
    from radplan.recalc.recalculate import control_points

    delivery = recalculation.delivery
    machines = ", ".join(recalculation.machine_names)
    print(f"plan {delivery.name}: {delivery.mu:.1f} MU a fraction, {recalculation.fractions} fractions, {machines}")
    for field in control_points(recalculation):
        print(
            f"  {field['number']:>3} {field['name']}: {field['technique']}, {field['mu']:.2f} MU, "
            f"{field['control_points']} control points, {field['mlc'] or 'no leaves'}"
        )
    tell_doses(recalculation)
