"""Figures: what they show stands where the patient has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.image import imread

from radplan import viz
from radplan.errors import InputError
from radplan.patient.structures import Structure, Structures
from radplan.plan import Plan, evaluate
from radplan.viz.dvh import draw_dvh
from radplan.viz.palette import structure_colors
from radplan.viz.slices import draw_slices
from tests import small_case

X = np.asarray([1.0, 2.0, 0.5, 0.0, 1.5, 1.0])


@pytest.fixture(scope="module")
def plan() -> Plan:
    plan = evaluate(small_case.dij(), X, small_case.patient(), fractions=25, beams=small_case.beams())
    return plan.scaled("PTV", D50=50.0)


def test_files_are_written_whole(plan: Plan, tmp_path: Path) -> None:
    paths = viz.save_figures(plan, tmp_path / "out")
    assert [path.name for path in paths] == ["dvh.png", "slices.png"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["dvh.png", "files.json", "slices.png"]
    assert all(imread(path).std() > 0.05 for path in paths)


def test_planes_show_the_patient_the_way_it_is_read(plan: Plan) -> None:
    axial, coronal, sagittal = draw_slices(plan).axes[:3]
    assert axial.get_title() == "axial, z = 0.0 mm"
    assert axial.get_xlim()[0] < axial.get_xlim()[1]  # left of the patient (+x) on the viewer's right
    assert axial.get_ylim()[0] > axial.get_ylim()[1]  # posterior (+y) at the bottom
    for upright in (coronal, sagittal):
        assert upright.get_ylim()[0] < upright.get_ylim()[1]  # superior (+z) at the top
    places = {text.get_text(): text.get_position() for text in axial.texts}
    assert places["R"][0] < places["L"][0]
    assert places["A"][1] > places["P"][1]
    places = {text.get_text(): text.get_position() for text in sagittal.texts}
    assert places["A"][0] < places["P"][0]
    assert places["S"][1] > places["I"][1]


def test_images_lie_on_the_voxels_they_show(plan: Plan) -> None:
    axial = draw_slices(plan).axes[0]
    gray, wash = axial.images
    left, right, bottom, top = gray.get_extent()
    assert (left, right) == (-25.0, 25.0)
    assert (bottom, top) == (22.5, -22.5)
    rows = np.asarray(gray.get_array())
    assert rows.shape == (9, 10)
    assert rows[4, 5] == pytest.approx(0.0, abs=1e-3)
    # Isocentre z = 0 lies midway between slices 3 and 4.
    expected = plan["physical_dose"][3:5].mean(axis=0)
    shown = np.asarray(wash.get_array()[4, 4])
    assert float(shown) == pytest.approx(float(expected[4, 4]), rel=1e-5)


def test_rows_and_columns_of_every_image_stand_at_their_world_positions(plan: Plan) -> None:
    x, y, z = small_case.GRID.axes
    for axes, across, up in zip(draw_slices(plan).axes[:3], (x, x, y), (y, z, z), strict=True):
        for image in axes.images:
            left, right, bottom, top = image.get_extent()
            first, last = (top, bottom) if image.origin == "upper" else (bottom, top)
            rows, columns = image.get_array().shape
            np.testing.assert_allclose(left + (np.arange(columns) + 0.5) * (right - left) / columns, across)
            np.testing.assert_allclose(first + (np.arange(rows) + 0.5) * (last - first) / rows, up)


def test_beams_come_from_where_they_come(plan: Plan) -> None:
    axial = draw_slices(plan).axes[0]
    labels = {text.get_text(): text.get_position() for text in axial.texts if "°" in text.get_text()}
    assert labels["0°"][1] < -20.0  # gantry 0 from anterior
    assert labels["90°"][0] > 20.0  # gantry 90 from the patient's left
    assert abs(labels["0°"][0]) < 1e-6


def test_isodoses_are_percent_of_the_prescription(plan: Plan) -> None:
    side = draw_slices(plan).axes[3]
    texts = [text.get_text() for text in side.get_legend().get_texts()]
    assert "100 % = prescription 50.0 Gy" in texts
    assert "95 %  (47.5 Gy)" in texts


def test_without_a_prescription_isodoses_are_percent_of_the_maximum() -> None:
    bare = evaluate(small_case.dij(), X, small_case.patient(prescription=None))
    texts = [text.get_text() for text in draw_slices(bare).axes[3].get_legend().get_texts()]
    assert any(text.startswith("100 % = maximum") for text in texts)


def test_the_dvh_names_its_axes_and_curves(plan: Plan) -> None:
    axes = draw_dvh(plan).axes[0]
    assert axes.get_xlabel() == "Physical dose of the course [Gy]"
    assert axes.get_ylabel() == "Volume [%]"
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts[0].startswith("PTV  (mean ")
    assert texts[-1] == "prescription 50 Gy"
    curve = axes.lines[0]
    assert np.asarray(curve.get_ydata())[0] == 100.0


def test_a_dose_of_zero_can_be_drawn() -> None:
    nothing = evaluate(small_case.dij(), 0 * X, small_case.patient())
    draw_slices(nothing)
    draw_dvh(nothing)


def test_let_is_drawn_without_a_prescription(plan: Plan) -> None:
    assert draw_dvh(plan, "let").axes[0].get_xlabel() == "LETd [keV/um]"
    draw_slices(plan, "let")


def test_colors_differ_between_structures(plan: Plan) -> None:
    colors = structure_colors(plan.patient.structures)
    assert len(set(colors.values())) == 3
    assert structure_colors(Structures()) == {}


def test_structures_of_one_colour_are_told_apart() -> None:
    red = {"grid": small_case.GRID, "voxels": np.asarray([1]), "color": (1.0, 0.0, 0.0)}
    held = Structures([Structure("LUNGS", **red), Structure("GTV", role="target", **red), Structure("Cord", **red)])
    colors = structure_colors(held)
    assert list(colors) == ["LUNGS", "GTV", "Cord"]
    assert colors["GTV"] == (1.0, 0.0, 0.0)
    pairs = [("LUNGS", "GTV"), ("LUNGS", "Cord"), ("GTV", "Cord")]
    assert min(np.linalg.norm(np.subtract(colors[a], colors[b])) for a, b in pairs) > 0.3


def test_a_table_beside_the_plan_is_dashed(plan: Plan) -> None:
    table = {"PTV": plan.dvh()["PTV"]}
    axes = draw_dvh(plan, beside=table, label="clinic").axes[0]
    assert [line for line in axes.lines if line.get_linestyle() == "--" and len(line.get_xdata()) > 2]
    assert "dashed: clinic" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_pale_and_dark_colors_are_made_readable() -> None:
    structures = [
        Structure("pale", small_case.GRID, np.asarray([1]), color=(1.0, 1.0, 0.0)),
        Structure("dark", small_case.GRID, np.asarray([1]), color=(0.0, 0.0, 0.0)),
        Structure("fine", small_case.GRID, np.asarray([1]), color=(0.13, 0.55, 0.13)),
    ]
    colors = structure_colors(Structures(structures))
    assert colors["pale"] == pytest.approx((0.7328, 0.7328, 0.0), abs=1e-3)
    assert colors["dark"] == pytest.approx((0.18, 0.18, 0.18))
    assert colors["fine"] == (0.13, 0.55, 0.13)


def test_without_matplotlib_the_error_says_what_to_install(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viz, "figures_available", lambda: False)
    with pytest.raises(InputError, match=r"pip install 'radplan\[viz\]'"):
        viz.save_figures(plan, tmp_path)
