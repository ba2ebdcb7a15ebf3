"""Figures of particle plans: Bragg peaks where the beams end, spots where they lie."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from radplan.beams import Beams, place_beams
from radplan.engines import ParticlePencilBeam, dose_influence
from radplan.errors import InputError
from radplan.machines import library_machine
from radplan.patient.phantoms import phantom
from radplan.plan import Plan, evaluate
from radplan.viz.maps import draw_maps
from radplan.viz.profiles import draw_profiles
from radplan.viz.spots import draw_spots
from tests import small_case


@pytest.fixture(scope="module")
def single() -> tuple[Plan, float]:
    """One energy of protons from the front, spots 6 mm apart, and the depth of its peak [mm]."""
    patient, machine = phantom("box"), library_machine("generic_proton")
    entry = machine.entry(40)
    places = np.stack(np.meshgrid([-12.0, -6.0, 0.0, 6.0, 12.0], [-12.0, -6.0, 0.0, 6.0, 12.0]), axis=-1).reshape(-1, 2)
    beams = Beams.from_rays(
        [places], gantry=0.0, isocenter=(0.0, 0.0, 0.0), sad=machine.sad, bixel_width=6.0, machine=machine.name,
        radiation="protons", energies=[np.full(25, entry.energy)],
    )  # fmt: skip
    dij = dose_influence(patient, beams, machine, grid=3.0, engine=ParticlePencilBeam(biology="wedenberg"))
    x = np.ones(25)
    x[[0, 4]] = 0.0
    return evaluate(dij, x, patient, fractions=30).scaled("OuterTarget", "rbe_x_dose", Dmax=60.0), entry.peak


def test_the_bragg_peak_lies_at_its_depth_and_let_rises_behind_it(single: tuple[Plan, float]) -> None:
    plan, peak = single
    above, below = draw_profiles(plan).axes[:2]
    curves = {line.get_label(): line for line in (*above.lines, *below.lines)}
    beam = curves["this beam, physical [Gy]"]
    depth, dose = np.asarray(beam.get_xdata()), np.asarray(beam.get_ydata())
    assert depth[np.argmax(dose)] == pytest.approx(peak, abs=2.0)
    assert dose.max() > 2.5 * dose[0]
    let = np.asarray(curves["LET, this beam"].get_ydata())
    assert np.interp(peak + 3.0, depth, let) > np.interp(peak, depth, let) > 2 * np.interp(peak / 2, depth, let)
    assert np.isnan(let[depth > peak + 20.0]).all()  # without dose there is no LET


def test_targets_are_shaded_where_the_axis_meets_them(single: tuple[Plan, float]) -> None:
    above = draw_profiles(single[0]).axes[0]
    spans = [patch.get_extents().transformed(above.transData.inverted()) for patch in above.patches]
    assert len(spans) == 1  # the box's target: 63 of 153 mm in the middle
    assert (spans[0].x0, spans[0].x1) == (pytest.approx(45.0, abs=1.5), pytest.approx(108.0, abs=1.5))


def test_maps_show_ratios_only_where_there_is_dose(single: tuple[Plan, float]) -> None:
    plan = single[0]
    figure = draw_maps(plan)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles.count("axial, z = 0.0 mm") == 3
    assert titles.count("sagittal, x = 0.0 mm") == 3  # the plane that holds the beam from the front
    labels = [axes.get_xlabel() for axes in figure.axes]
    assert "RBE-weighted dose of the course [Gy(RBE)]" in labels
    assert "LETd [keV/um]" in labels
    assert "RBE [1]" in labels
    patient, let = figure.axes[3].images  # after two panels of dose and their colour bar
    assert patient.get_array().shape == let.get_array().shape
    hidden = np.ma.getmaskarray(let.get_array())
    x, y, _ = plan.patient.ct.grid.axes
    assert not hidden[np.argmin(np.abs(y + 40.0)), np.argmin(np.abs(x))]  # in the beam
    assert hidden[:, np.abs(x) > 50.0].all()  # beside it
    assert hidden[y > 70.0, :].all()  # behind its peaks


def test_spots_lie_where_the_source_sees_them(single: tuple[Plan, float]) -> None:
    layers, panel = draw_spots(single[0]).axes[:2]
    assert layers.get_title() == "gantry 0°: 23 spots in 1 layers"
    drawn = np.asarray(panel.collections[0].get_offsets())
    assert drawn.shape == (23, 2)
    assert sorted(set(drawn[:, 0])) == [-12.0, -6.0, 0.0, 6.0, 12.0]
    assert len(panel.lines[0].get_xdata()) == 2  # those not used, as grey dots
    assert panel.get_title().endswith("23 of 25 spots")


def test_a_plan_of_zero_weights_can_be_drawn(single: tuple[Plan, float]) -> None:
    nothing = replace(single[0], x=np.zeros(25))
    draw_maps(nothing)
    draw_profiles(nothing)
    draw_spots(nothing)


def test_photons_have_no_spots() -> None:
    plan = evaluate(small_case.dij(), np.ones(6), small_case.patient(), beams=small_case.beams())
    with pytest.raises(InputError, match="no spots to draw"):
        draw_spots(plan)
    with pytest.raises(InputError, match="profiles need the beams"):
        draw_profiles(evaluate(small_case.dij(), np.ones(6), small_case.patient()))


def test_a_plan_with_constant_rbe_has_no_map_of_it() -> None:
    patient, machine = phantom("box"), library_machine("generic_proton")
    beams = place_beams(patient, machine, gantry=90.0, bixel_width=30.0, layer_spacing=40.0)
    dij = dose_influence(patient, beams, machine, grid=12.0)
    plan = evaluate(dij, np.ones(beams.count), patient, fractions=30)
    labels = [axes.get_xlabel() for axes in draw_maps(plan).axes]
    assert "RBE [1]" not in labels
    assert "LETd [keV/um]" in labels
    draw_profiles(plan)
