"""Arcs from goals: they get better step by step, keep the machine's limits and refuse what cannot be planned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from radplan.beams import DeliveryPlan, place_arc
from radplan.delivery.arc_bixels import Arc, arc_bixels, bixel_beams
from radplan.delivery.arc_cost import ArcCost, solve_mu
from radplan.delivery.arc_matrix import arc_matrix, sampled_members
from radplan.delivery.arc_search import ArcSearch
from radplan.delivery.arcs import ArcOptions, exact_dose, placed_arcs, plan_arcs, scaled_mu, search_arcs
from radplan.delivery.check import check_delivery
from radplan.delivery.rows import RowDescent
from radplan.delivery.sequencing.runs import arc_of_fluence
from radplan.engines import ApertureOptions, aperture_model, dose_influence
from radplan.errors import InputError
from radplan.geometry.frames import beam_rotation, isocentre_plane, world_to_beam
from radplan.io.dicom import check_rtplan, export_rtplan, read_plan
from radplan.machines import library_machine
from radplan.machines.limits import library_limits
from radplan.machines.mlc import library_mlc
from radplan.optim import Goal
from radplan.optim.objectives import SquaredDeviation, SquaredOverdosing
from radplan.patient.phantoms import phantom
from radplan.patient.structures import Structures

GOALS = (
    Goal("OuterTarget", SquaredDeviation(50.0), weight=1000.0),
    Goal("Core", SquaredOverdosing(20.0), weight=300.0),
    Goal("BODY", SquaredOverdosing(30.0), weight=100.0),
)
LINAC, TRUEBEAM = library_machine("generic_photon_6mv"), library_limits("TrueBeam")
QUICK = ArcOptions(spacing=15.0, beam_time=150.0, start=181.0, stop=31.0, effort=0.3)


@pytest.fixture(scope="module")
def patient():
    return phantom("tg119")


@pytest.fixture(scope="module")
def search(patient):
    """Return a search of a 210 degree arc of 14 segments on an 8 mm grid, with shapes chosen."""
    arcs = placed_arcs(1, QUICK, TRUEBEAM)
    mlc, names = library_mlc("Millennium 120"), [goal.structure for goal in GOALS]
    grid = patient.ct.grid.with_spacing(8.0)
    centre = patient.ct.grid.points(patient.structures["OuterTarget"].voxels).mean(axis=0)
    bixels = arc_bixels(patient, patient.target_names, LINAC, mlc, arcs, centre, TRUEBEAM)
    matrix = arc_matrix(patient, LINAC, mlc, bixels, names, patient.target_names, grid)
    planning = TRUEBEAM.planning()
    made = ArcSearch(matrix, ArcCost.of(matrix, GOALS, 30), mlc, planning, planning.dose_rate() / 60.0, 100.0)
    made.price(50.0 / 30)
    return made


def test_the_matrix_is_the_engine_s(patient, search):
    """Dose of every bixel, placed and ordered as said: the engine's own influence at one segment."""
    matrix, bixels = search.matrix, search.matrix.bixels
    beams, parts = bixel_beams(patient, LINAC, search.mlc, bixels, [3])
    assert (beams[0].gantry, beams[0].collimator) == (bixels.arcs[0].middles[3], bixels.arcs[0].collimator)
    rows, columns = bixels.lines[parts] - 3 * bixels.rows, bixels.column[parts]
    np.testing.assert_allclose(beams[0].bixels[:, 0], 0.5 * (bixels.edges[columns] + bixels.edges[columns + 1]))
    boundaries = search.mlc.boundaries
    pairs = bixels.pairs[rows]
    assert np.all((beams[0].bixels[:, 1] > boundaries[pairs]) & (beams[0].bixels[:, 1] < boundaries[pairs + 1]))
    dij = dose_influence(patient, beams, LINAC, grid=matrix.grid, voxels=matrix.voxels)
    weights = np.random.default_rng(0).uniform(size=bixels.count)
    expected = dij.forward(weights[parts])["physical_dose"][0]
    own = bixels.segment_slice(3)
    found = weights[own].astype(np.float32) @ matrix.values[own]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * expected.max())


def test_leaf_ends_stay_where_the_target_is_seen(patient, search):
    """Bounds lie at the target's outline and margin, move no faster than leaves, and keep the span of a bank."""
    bixels, grid = search.matrix.bixels, patient.ct.grid
    points = grid.points(patient.structures["OuterTarget"].voxels)
    arc, boundaries = bixels.arcs[0], search.mlc.boundaries
    for point in (0, 6, 14):
        rotation = beam_rotation(arc.gantry[point], arc.couch, arc.collimator)
        x, y, _ = isocentre_plane(world_to_beam(points, bixels.isocentre, rotation), LINAC.sad)
        for row in range(bixels.rows):
            pair = bixels.pairs[row]
            seen = x[(y >= boundaries[pair]) & (y < boundaries[pair + 1])]
            if seen.size:
                low, high = bixels.places[point, row]
                assert low <= seen.min() - 4.99
                assert high >= seen.max() + 4.99
    moves = np.abs(np.diff(bixels.places, axis=0))
    assert np.all(moves <= 25.0 / 6.0 * arc.travel[:, None, None] + 1e-6)
    assert bixels.count < 0.8 * bixels.segments * bixels.rows * bixels.columns
    whole = float(np.ptp(bixels.places))
    lower, upper = bixels.leaf_bounds(whole - 10.0)
    assert np.all(lower <= upper)
    for bank in (0, 1):
        assert np.ptp(np.stack([lower[..., bank], upper[..., bank]])) <= whole - 10.0 + 1e-9
    with pytest.raises(InputError, match="leaves of one bank stay within 20 mm"):
        bixels.leaf_bounds(20.0)


def test_shares_of_sampled_voxels_keep_the_mean(patient, search):
    """The body's mean dose on the sample is that of all its voxels within a tenth; the target is whole."""
    matrix = search.matrix
    whole = patient.structure_weights("OuterTarget", matrix.grid, overlap_with=[goal.structure for goal in GOALS])
    np.testing.assert_array_equal(matrix.members["OuterTarget"][0], whole[0])
    body = patient.structure_weights("BODY", matrix.grid, overlap_with=[goal.structure for goal in GOALS])
    away = np.linalg.norm(matrix.grid.points(body[0]) - matrix.bixels.isocentre, axis=1)
    kept, shares = matrix.members["BODY"]
    sampled = np.linalg.norm(matrix.grid.points(kept) - matrix.bixels.isocentre, axis=1) @ shares
    assert shares.sum() == pytest.approx(1.0)
    assert sampled == pytest.approx(away @ body[1], rel=0.1)


def test_no_more_voxels_than_fit(patient, caplog):
    """Half the voxels when half fit, with a warning; shares still sum to one."""
    names, grid = [goal.structure for goal in GOALS], patient.ct.grid.with_spacing(8.0)
    free = sampled_members(patient, grid, names, patient.target_names, 0)[1]
    members, rows = sampled_members(patient, grid, names, patient.target_names, 0, free.size // 2)
    assert rows.size == pytest.approx(free.size / 2, rel=0.2)
    assert all(shares.sum() == pytest.approx(1.0) for _, shares in members.values())
    assert "fit into" in caplog.text


def test_voxels_of_two_structures_count_once(patient, caplog):
    """All that are sampled fit where as many are allowed, though structures share some."""
    twin = replace(patient.structures["OuterTarget"], name="twin")
    twins = replace(patient, structures=Structures([*patient.structures.values(), twin]))
    grid = patient.ct.grid.with_spacing(8.0)
    names = ["OuterTarget", "twin"]
    free = sampled_members(twins, grid, names, patient.target_names, 0)[1]
    sampled_members(twins, grid, names, patient.target_names, 0, free.size)
    assert "fit into" not in caplog.text


def test_curvature_and_slope_of_the_cost(search):
    """Finite differences along a random direction; the curvature of squares is twice their weight."""
    cost, dose = search.cost, search.dose()
    random = np.random.default_rng(1)
    slope = cost(dose)[1]
    way = random.normal(size=dose.size) * 1e-4
    assert cost(dose + way)[0] - cost(dose - way)[0] == pytest.approx(2 * way @ slope, rel=1e-4)
    members = search.matrix.members
    alone = ~np.isin(members["OuterTarget"][0], np.concatenate([members["Core"][0], members["BODY"][0]]))
    where = np.searchsorted(search.matrix.voxels, members["OuterTarget"][0][alone])
    expected = 2.0 * 1000.0 * 30**2 * members["OuterTarget"][1][alone]
    np.testing.assert_allclose(cost.curvature(dose, slope)[where], expected, rtol=1e-3)


def test_row_descent_only_goes_down_and_keeps_a_hard_limit(search):
    search.hold()
    matrix, travel = search.matrix, search.travel
    rows = RowDescent(matrix, search.cost, search.leaves.copy(), search.mu.copy(), search.gap, search.bounds)
    before = search.cost(matrix.dose(rows.mu, rows.leaves))[0]
    moved = rows.sweep(travel, None, np.random.default_rng(0))
    after = search.cost(matrix.dose(rows.mu, rows.leaves))[0]
    assert moved > 20
    assert after < 0.9 * before
    assert rows.value == pytest.approx(after, rel=1e-4)
    begin = matrix.bixels.begin
    moves = np.abs(rows.leaves[begin + 1] - rows.leaves[begin]).max(axis=(1, 2))
    assert np.all(moves <= travel + 1e-9)
    assert np.ptp(rows.leaves, axis=2).min() >= search.gap - 1e-9


def test_monitor_units_are_the_best(search):
    """No monitor unit's slope points downhill within bounds."""
    columns = search.matrix.columns_of(search.matrix.swept(search.leaves))
    lower, upper = search.mu_bounds()
    mu, dose = solve_mu(search.cost, columns, search.mu, lower, upper, 300)
    gradient = columns @ search.cost(dose)[1]
    free = (mu > lower + 1e-6) & (mu < upper - 1e-6)
    assert np.abs(gradient[free]).max() < 0.02 * np.abs(columns @ search.cost(0.0 * dose)[1]).max()
    assert np.all(gradient[mu <= lower + 1e-9] > -1e-3 * np.abs(gradient).max())


def test_leaf_ends_lower_the_cost_within_the_limits(search):
    search.hold()
    before = search.cost(search.dose())[0]
    search.search_ends(LINAC, 15)
    after = search.cost(search.dose())[0]
    assert after < 0.97 * before
    assert search.needed().sum() <= search.budget + 1e-6


def test_the_correction_is_exact_where_it_was_made(patient, search):
    exact = exact_dose(search, patient, LINAC)
    corrected = search.cost.corrected(search.dose(), exact)
    assert 0.85 < corrected.factor < 1.1
    ours = replace(corrected, factor=1.0, offset=np.zeros_like(exact))(exact)[0]
    assert corrected(search.dose())[0] == pytest.approx(ours, rel=1e-9)


def test_coarse_rays_change_little(patient, search):
    """Rays 3 mm apart give the exact engine's dose within 0.3 % of its largest."""
    plan = DeliveryPlan("arcs", tuple(search.fields(LINAC)), 30, patient.patient_position)
    matrix = search.matrix
    fine = aperture_model(
        patient, plan, LINAC, search.mlc, matrix.grid, ApertureOptions(ray_spacing=1.0), voxels=matrix.voxels
    )
    dose = fine.forward(np.asarray(fine.variables.start))["physical_dose"][0]
    assert np.abs(exact_dose(search, patient, LINAC) - dose).max() < 0.003 * dose.max()


def test_an_arc_is_deliverable_and_meets_its_level(patient):
    """Rounded, within every limit of the machine, at the level asked for; a start from its leaves is soon as good."""
    level = ("OuterTarget", 0.95, 50.0)
    outcome = search_arcs(patient, GOALS, LINAC, limits=TRUEBEAM, options=QUICK, grid=8.0, fractions=30, level=level)
    report = check_delivery(outcome.plan, TRUEBEAM)
    assert not report.violations
    assert report.beam_on <= 150.0
    assert report.leaf_speed_share <= 1.0 + 1e-9
    voxels, shares = outcome.search.matrix.members["OuterTarget"]
    dose = 30 * outcome.exact[np.searchsorted(outcome.search.matrix.voxels, voxels)]
    assert np.sum(shares[dose >= 50.0]) == pytest.approx(0.95, abs=0.005)
    again = search_arcs(
        patient, GOALS, LINAC, limits=TRUEBEAM, options=replace(QUICK, effort=0.1), grid=8.0, fractions=30,
        level=level, start=scaled_mu(outcome.plan, 0.5),
    )  # fmt: skip
    assert not check_delivery(again.plan, TRUEBEAM).violations
    cost, before = (each.search.cost(each.search.dose())[0] for each in (again, outcome))
    assert cost < 1.1 * before
    assert scaled_mu(again.plan, 2.0).mu == pytest.approx(2.0 * again.plan.mu)


def test_no_beam_in_avoided_sectors(patient, tmp_path):
    """No monitor unit is given there, by the file and by its check; leaves may go anywhere meanwhile."""
    options = replace(QUICK, avoid=((241.0, 271.0),), effort=0.1)
    outcome = search_arcs(patient, GOALS, LINAC, limits=TRUEBEAM, arcs=1, options=options, grid=10.0, fractions=30)
    bixels, (field,) = outcome.search.matrix.bixels, outcome.plan.fields
    assert [segment.start.gantry for segment in field.segments if segment.mu == 0.0] == [241.0]
    assert bixels.row_slice(4, 0).start == bixels.row_slice(4, bixels.rows - 1).stop
    report = check_delivery(outcome.plan, TRUEBEAM)
    assert not report.violations
    assert report.beam_on <= 150.0
    path = export_rtplan(outcome.plan, patient, tmp_path / "RP.dcm", TRUEBEAM)
    assert not check_rtplan(path, "TrueBeam").findings
    (read,) = read_plan(path).fields
    assert [segment.mu > 0.0 for segment in read.segments] == bixels.lit.tolist()
    again = search_arcs(
        patient, GOALS, LINAC, limits=TRUEBEAM, options=options, grid=10.0, fractions=30, start=outcome.plan
    )
    assert [segment.mu > 0.0 for segment in again.plan.fields[0].segments] == bixels.lit.tolist()


def test_where_avoided_sectors_may_lie():
    """Their ends are control points, and arcs that go back avoid the same ones."""
    there, back = placed_arcs(2, ArcOptions(spacing=30.0, avoid=((350.0, 10.0), (80.0, 100.0))), TRUEBEAM)
    for arc in (there, back):
        off = [sorted(arc.gantry[[segment, segment + 1]].tolist()) for segment in arc.avoided]
        assert sorted(off) == [[10.0, 350.0], [80.0, 100.0]]
        assert arc.travel[~arc.lit].tolist() == [20.0, 20.0]
        assert arc.travel.sum() == pytest.approx(358.0)
    for sectors in ([(170.0, 190.0)], [(181.0, 200.0)], [(80.0, 100.0), (90.0, 110.0)], [(20.0, 20.0)]):
        with pytest.raises(InputError, match="must lie within the arc from 181 to 179"):
            placed_arcs(1, ArcOptions(avoid=tuple(sectors)), TRUEBEAM)


def test_two_arcs_go_there_and_back():
    first, second = placed_arcs(2, replace(QUICK, couches=(0.0, 10.0)), TRUEBEAM)
    np.testing.assert_array_equal(second.gantry, first.gantry[::-1])
    np.testing.assert_allclose(second.middles, first.middles[::-1])
    assert (second.direction, second.collimator, second.couch) == ("CC", 345.0, 10.0)
    assert Arc(np.asarray([359.0, 1.0]), 0.0, 0.0, "CW").middles.tolist() == [0.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": ArcOptions(start=170.0, stop=190.0)}, "crosses the gantry's stop"),
        ({"options": ArcOptions(beam_time=30.0)}, "30 s are too few for 1 arcs"),
        ({"options": ArcOptions(collimators=(0.0, 90.0))}, "1 arcs need 1 collimators, got 2"),
        ({"limits": replace(TRUEBEAM, neighbour_gap=10.0)}, "may not pass their neighbours"),
        ({"limits": replace(TRUEBEAM, dynamic_gap=250.0)}, "stay 250 mm apart, more than the target's"),
        ({"limits": replace(TRUEBEAM, bank_span=20.0)}, "leaves of one bank stay within 20 mm"),
        ({"limits": replace(TRUEBEAM, leaf_travel=(20.0, 20.0))}, "beyond the 20 mm that leaves"),
        ({"limits": replace(TRUEBEAM, mu_per_degree=(10.0, 20.0))}, "10 MU/degree take"),
        ({"arcs": 0}, "arcs must be a whole number >= 1"),
        ({"mlc": library_mlc("Agility")}, "has the collimator 'Millennium 120', not 'Agility'"),
        ({"goals": ()}, "at least one goal"),
        ({"goals": GOALS[1:]}, "no goal asks for dose in a target"),
        ({"level": ("Lung", 0.95, 50.0)}, "'Lung', which has no goal"),
        ({"level": ("OuterTarget", 95.0, 50.0)}, "share of volume"),
    ],
)
def test_what_cannot_be_planned_is_refused_at_once(patient, change, message, monkeypatch):
    """Before any dose is calculated."""
    monkeypatch.setattr("radplan.delivery.arcs.arc_matrix", None)
    given = {"goals": GOALS, "mlc": None, "arcs": 1, "options": QUICK, "limits": "TrueBeam", **change}
    goals = given.pop("goals")
    with pytest.raises(InputError, match=message):
        plan_arcs(patient, goals, LINAC, **given)


def test_a_fluence_at_every_control_point_is_a_start(search):
    """The rule-based sequencer opens what the fluence asks for; the search goes on from there, with its own limits."""
    bixels, arc = search.matrix.bixels, search.matrix.bixels.arcs[0]
    fluence = np.zeros((arc.gantry.size, search.mlc.pairs, bixels.columns))
    fluence[:, bixels.pairs, 5:12] = 8.0
    made = arc_of_fluence(
        fluence, bixels.edges, arc.gantry, bixels.isocentre, LINAC, search.mlc, TRUEBEAM, collimator=arc.collimator
    )
    begun = replace_search(search)
    begun.begin_at(made)
    low, high = bixels.places[3].T
    expected = 0.5 * (np.clip(bixels.edges[5], low, high) + np.clip(bixels.edges[12], low, high))
    np.testing.assert_allclose(begun.leaves[3].mean(axis=1), expected, atol=0.8)  # leaf offset
    before = begun.cost(begun.dose())[0]
    assert begun.descend([None]) < before
    with pytest.raises(InputError, match="has its collimator at 0 degrees"):
        begun.begin_at(arc_of_fluence(fluence, bixels.edges, arc.gantry, bixels.isocentre, LINAC, search.mlc, TRUEBEAM))


def replace_search(search):
    return ArcSearch(search.matrix, search.cost, search.mlc, search.limits, search.rate, search.budget, search.seed)


def test_jaws_follow_the_open_leaves(search):
    """They cover every open pair and move no faster than jaws do; they stand where the linac does not track them."""
    begun = replace_search(search)
    begun.leaves, begun.mu = search.leaves.copy(), search.mu.copy()
    bixels, points = begun.matrix.bixels, begun.fields(LINAC)[0].points
    x, y = np.stack([point.jaws_x for point in points]), np.stack([point.jaws_y for point in points])
    opened = np.ptp(begun.leaves, axis=2) > begun.gap + 0.5
    assert np.all((begun.leaves[..., 0] >= x[:, :1] + 5.0 - 1e-9) | ~opened)
    assert np.all((begun.leaves[..., 1] <= x[:, 1:] - 5.0 + 1e-9) | ~opened)
    low, high = (search.mlc.boundaries[bixels.pairs + side] for side in (0, 1))
    assert np.all((low >= y[:, :1]) & (high <= y[:, 1:]) | ~opened)
    for jaws, speed in ((x, begun.limits.jaw_speed[0]), (y, begun.limits.jaw_speed[1])):
        assert np.all(np.abs(np.diff(jaws, axis=0)).max(axis=1) <= speed * begun.seconds + 1e-6)
    assert np.ptp(y[:, 1] - y[:, 0]) > 5.0
    begun.limits = replace(begun.limits, jaw_tracking=False)
    stands = [(point.jaws_x.tolist(), point.jaws_y.tolist()) for point in begun.fields(LINAC)[0].points]
    assert all(stand == stands[0] for stand in stands)
    begun.limits = replace(begun.limits, jaw_past_axis=(None, 100.0), jaw_outward=(None, 200.0), jaw_speed=(None, 25.0))
    assert begun.fields(LINAC)[0].points[0].jaws_x is None


def test_a_start_of_other_arcs_is_refused(patient, search):
    other = place_arc(patient, LINAC, search.mlc, 181.0, 31.0, spacing=30.0)
    with pytest.raises(InputError, match="other gantry angles"):
        search.begin_at(other)
