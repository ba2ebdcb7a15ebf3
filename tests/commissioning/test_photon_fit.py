"""A linac fitted to a water tank: it finds the linac that made the curves, and the measured tank within its bars."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from radplan.cli.main import main
from radplan.commissioning.agreement import relative
from radplan.commissioning.photon_fit import fit_photons
from radplan.commissioning.photon_parameters import start_model
from radplan.commissioning.tank import OutputFactor, TankData, TankScan
from radplan.commissioning.tank_dose import predicted
from radplan.errors import InputError
from radplan.io import load_machine
from radplan.io.tank import read_tank
from radplan.machines import Collimation, library_machine
from radplan.machines.generate.photon import make
from radplan.workflows.commissioning import save_commissioning


def line(curve, depth, far=80.0, field=(100.0, 100.0), leaf_axis="x"):
    position = np.arange(0.0, 301.0, 5.0) if curve == "depth dose" else np.arange(-far, far + 1, 2.0)
    return TankScan(curve, 6.0, 900.0, field, depth, position, np.ones(position.size), leaf_axis)


PLACES = (line("depth dose", None), line("inplane", 50.0), line("crossplane", 50.0))


@pytest.mark.long
def test_the_linac_that_made_the_curves_comes_back():
    """Curves of a known linac, unlike the generic one in all that curves tell; the search begins with that one."""
    usual = start_model(None, 6.0)
    made_with = replace(
        usual, quality=0.675, source_fwhm=3.4, head=replace(usual.head, scatter=0.1),
        collimation=Collimation(leaf_end_fwhm=3.0, jaw_transmission=0.004, leaf_transmission=0.02, leaf_offset=0.8),
    )  # fmt: skip
    factor = OutputFactor((50.0, 50.0), 900.0, 100.0, 1.0, 6.0)
    given = predicted(make(made_with), TankData(PLACES, (factor,)))
    scans = tuple(replace(scan, dose=dose) for scan, dose in zip(PLACES, given.curves, strict=True))
    fitted = fit_photons(TankData(scans, (replace(factor, value=float(given.factors[0])),)))
    assert fitted["quality"].value == pytest.approx(0.675, abs=0.001)
    assert fitted["source_fwhm"].value == pytest.approx(3.4, abs=0.3)
    assert fitted["leaf_end_fwhm"].value == pytest.approx(3.0, abs=0.5)
    assert fitted["leaf_offset"].value == pytest.approx(0.8, abs=0.1)
    assert fitted["leaf_transmission"].value == pytest.approx(0.02, abs=0.003)
    assert max(fit.figures.get("edges_mm", 0.0) for fit in fitted.curves) < 0.1
    assert abs(fitted.factors[0].percent) < 0.2


@pytest.mark.long
def test_the_measured_tank_within_its_bars(shared, tmp_path):
    """Bars: 0.7 % beyond d_max, 2 % or 1 mm before; 1 % inside, 1 mm at all edges; output factor of the 5x5 1 %.

    Found: 0.40 %, 0.30 of the criterion; 0.81 %, 0.20 mm; -0.16 %.
    """
    data = read_tank(shared("cases/water-tank-6mv"))
    fitted = fit_photons(data, "clinic_6mv")
    for fit in fitted.curves:
        if fit.scan.curve == "depth dose":
            assert fit.figures["beyond_percent"] < 0.7
            assert fit.figures["before"] < 1.0
        else:
            assert fit.figures["inside_percent"] < 1.0
            assert fit.figures["edges_mm"] < 1.0
    assert abs(fitted.factors[0].percent) < 1.0
    assert fitted["leaf_end_fwhm"].determined
    assert not fitted["jaw_transmission"].determined
    assert any("jaw_transmission" in sentence for sentence in fitted.undetermined)
    again = load_machine(save_commissioning(fitted, tmp_path)[0])
    for first, second in zip(
        predicted(fitted.machine, data, fitted["jaw_opening"].value).curves,
        predicted(again, data, fitted["jaw_opening"].value).curves,
        strict=True,
    ):
        np.testing.assert_allclose(first, second, rtol=1e-5)
    assert again.provenance["parameters"]["quality"]["value"] == fitted["quality"].value


@pytest.mark.long
def test_the_curves_alone_see_two_widths_of_the_second_source(shared):
    """And predict the factor of the 5x5 within the bar of 1 %: 0.8 % too low, by Nyholm's kernel as it is 1.03 %."""
    data = read_tank(shared("cases/water-tank-6mv"))
    fitted = fit_photons(replace(data, output_factors=()), "clinic_6mv")
    x, y = (fitted[f"scatter_sigma_{axis}"] for axis in "xy")
    assert x.value - y.value > y.uncertainty
    assert y.determined
    small = predicted(fitted.machine, replace(data, scans=data.scans[:1]), fitted["jaw_opening"].value)
    assert small.factors[0] / data.output_factors[0].value == pytest.approx(1.0, abs=0.01)


def test_the_generic_linac_is_two_millimetres_too_sharp_between_leaves(shared):
    """Why the crossplane penumbra was missed: leaf ends are blurred by more than the source."""
    data = read_tank(shared("cases/water-tank-6mv"))
    linac = library_machine("generic_photon_6mv")
    blurred = replace(linac, collimation=Collimation(leaf_end_fwhm=4.5))
    widths = []
    for machine in (linac, blurred):
        curves = predicted(machine, data).curves
        number = next(i for i, s in enumerate(data.scans) if (s.curve, s.depth) == ("crossplane", 200.0))
        scan = data.scans[number]
        outer = scan.position > 20.0
        known, ours = (
            np.interp([-0.2, -0.8], -relative(scan, dose)[outer], scan.position[outer]) @ [1.0, -1.0]
            for dose in (scan.dose, curves[number])
        )
        widths.append(ours - known)
    assert widths[0] < -1.9
    assert abs(widths[1]) < 0.5


@pytest.mark.parametrize(
    ("scans", "why"),
    [
        (PLACES[:2], "hold no crossplane, but depth dose"),
        (PLACES[1:], "no depth dose"),
        (
            (replace(PLACES[0], position=np.arange(0.0, 151.0, 5.0), dose=np.ones(31)), *PLACES[1:]),
            "deeper than 150 mm",
        ),
        ((PLACES[0], line("inplane", 50.0, far=50.0), PLACES[2]), "ends within 10 mm"),
    ],
)
def test_too_few_curves_are_refused(scans, why):
    with pytest.raises(InputError, match=why):
        fit_photons(TankData(scans))


def test_curves_of_other_energies_are_refused():
    with pytest.raises(InputError, match="several energies"):
        TankData((PLACES[0], replace(PLACES[1], energy=10.0)))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["nowhere.mcc"], "no such file or folder"),
        (["{tank}", "--energy", "10"], "no curve is of 10 MV"),
        (["{tank}", "--start", "generic_photon_7mv"], "did you mean"),
        (["{tank}", "--factors-at", "900"], "--factors-at takes"),
    ],
)
def test_the_command_tells_errors_in_one_line(shared, tmp_path, capsys, arguments, why):
    tank = str(shared("cases/water-tank-6mv/06MV_10x10.mcc"))
    given = [argument.replace("{tank}", tank) for argument in arguments]
    assert main(["commission", "photons", *given, "--out", str(tmp_path / "linac")]) == 2
    told = capsys.readouterr().err
    assert why in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "linac").exists()


@pytest.mark.long
def test_output_factors_alone_tell_source_and_head():
    """Artiste, 1x1 to 40x40 (depth 5 cm, SSD 95): 2 %, 1x1 within 3 %; what only curves tell stays usual."""
    measured = {10: 0.705, 20: 0.835, 30: 0.874, 50: 0.925, 100: 1.0, 200: 1.066, 400: 1.107}
    factors = tuple(OutputFactor((float(s),) * 2, 950.0, 50.0, value, 6.0) for s, value in measured.items())
    with pytest.raises(InputError, match=r"no depth dose and no .*, but no curve at all"):
        fit_photons(TankData((), factors))
    fitted = fit_photons(TankData((), factors), incomplete=True, most=6)
    assert max(abs(factor.percent) for factor in fitted.factors) < 2.0
    assert fitted.machine.smallest_field == 10.0
    assert not fitted["contamination"].determined
