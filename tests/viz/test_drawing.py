"""Figures drawn into axes of a caller: planes, slices and what a beam sees."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

import radplan as rp
from radplan.errors import InputError, UnknownNameError
from radplan.plan import Plan, evaluate
from tests import small_case

X = np.asarray([1.0, 2.0, 0.5, 0.0, 1.5, 1.0])


@pytest.fixture(scope="module")
def plan() -> Plan:
    return evaluate(small_case.dij(), X, small_case.patient(), fractions=25, beams=small_case.beams())


def test_everything_is_drawn_into_given_axes(plan: Plan) -> None:
    figure = Figure(figsize=(12, 4))
    left, middle, right = figure.subplots(1, 3)
    assert rp.draw_dvh(plan, ax=left) is figure
    assert rp.draw_slices(plan, plane="coronal", ax=middle) is figure
    assert rp.draw_beams_eye_view(plan, beam=1, ax=right) is figure
    assert left.get_ylabel() == "Volume [%]"
    assert middle.get_title().startswith("coronal, y = ")
    assert right.get_title() == "beam 2: gantry 90°"


@pytest.mark.parametrize(("plane", "axis"), [("axial", 2), ("coronal", 1), ("sagittal", 0)])
def test_a_slice_shows_the_dose_that_lies_there(plan: Plan, plane: str, axis: int) -> None:
    position = float(plan.patient.ct.grid.axes[axis][4])
    axes = rp.draw_slices(plan, plane=plane, slice=position).axes[0]
    assert axes.get_title().endswith(f"{plane}, {'xyz'[axis]} = {position:.1f} mm")
    shown = np.ma.filled(axes.images[1].get_array(), 0.0)
    expected = np.take(plan["physical_dose"], 4, axis=2 - axis)
    assert shown.max() == pytest.approx(expected.max(), rel=1e-5)


def test_a_wrong_plane_or_slice_is_named(plan: Plan) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'axial'"):
        rp.draw_slices(plan, plane="axal")
    with pytest.raises(InputError, match="the images run from z = "):
        rp.draw_slices(plan, slice=1e3)


def test_a_beam_sees_its_weights_where_its_bixels_are(plan: Plan) -> None:
    axes = rp.draw_beams_eye_view(plan, beam=0).axes[0]
    image = axes.images[0]
    assert np.asarray(image.get_array()).tolist() == [[1.0, 2.0, 0.5]]
    assert tuple(image.get_extent()) == (-7.5, 7.5, -2.5, 2.5)
    with pytest.raises(InputError, match="has 2 beams, counted from 0; there is no beam 2"):
        rp.draw_beams_eye_view(plan, beam=2)


def test_a_target_is_outlined_where_the_source_sees_it(plan: Plan) -> None:
    """The target's middle projects onto the field's axis but for its offset; its outline encloses that point."""
    axes = rp.draw_beams_eye_view(plan, beam=0, structures=["PTV"]).axes[0]
    target = plan.patient.structures["PTV"]
    middle = target.grid.points(target.voxels).mean(axis=0)
    outline = np.concatenate([path.vertices for lines in axes.collections for path in lines.get_paths()])
    assert outline[:, 0].min() < middle[0] < outline[:, 0].max()
    assert outline[:, 1].min() < middle[2] < outline[:, 1].max()


def test_gamma_of_a_plan_with_itself_and_with_two_percent_more(plan: Plan) -> None:
    same = rp.gamma(plan, plan)
    assert (same.passing, same.mean_absolute_difference) == (100.0, 0.0)
    assert set(same.isodose_dice.values()) == {1.0}
    more = evaluate(plan.model, 1.05 * plan.x, plan.patient, fractions=25)
    found = rp.gamma(more, plan, percent=3.0, distance=0.01, threshold=0.0)
    assert found.passing < 100.0
    dose = plan["physical_dose"]
    assert found.mean_absolute_difference == pytest.approx(0.05 * dose[dose > 0].mean(), rel=1e-6)
    array = rp.gamma(more["physical_dose"], dose, grid=plan.model.grid)
    assert array.passing == pytest.approx(rp.gamma(more, plan).passing)
    with pytest.raises(InputError, match="give grid="):
        rp.gamma(dose, plan)
