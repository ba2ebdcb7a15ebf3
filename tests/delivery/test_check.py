"""The delivery check: clinical plans pass for their own linac, and every broken limit is named once, where it is."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from radplan.beams import ControlPoint, DeliveryPlan, TreatmentField
from radplan.delivery.check import check_delivery
from radplan.delivery.complexity import field_complexity, plan_complexity
from radplan.errors import InputError, UnknownNameError
from radplan.io.dicom import read_plan
from radplan.machines import library_limits, library_mlc

TRUEBEAM = library_limits("TrueBeam")
EDGES = library_mlc("Millennium 120").boundaries

CLINICAL = {
    "vmat-plans/06MV_plan.dcm": "Versa HD",
    "vmat-plans/24mm_x_20mm_rectangle.dcm": "Versa HD",
    "vmat-plans/FFF_example.dcm": "Versa HD",
    "vmat-plans/vmat_example.dcm": "Versa HD",
    "vmat-plans/breast-4arc-vmat.dcm": "TrueBeam",
    "thorax-imrt/RTPLAN_Hashed.dcm": "TrueBeam STx",
    "eclipse-prostate/RP.dcm": "Clinac",
}


@pytest.mark.parametrize("path", CLINICAL)
def test_clinical_plans_pass_for_their_own_linac(shared, path):
    report = check_delivery(read_plan(shared(f"cases/{path}")), CLINICAL[path])
    report.raise_for_errors()
    assert "no violation" in str(report)
    assert report.beam_on >= report.mu / max(report.limits.dose_rates.values()) * 60.0
    assert report.leaf_speed_share <= 1.0 + 1e-9


def test_a_clinical_plan_fails_for_another_linac(shared):
    report = check_delivery(read_plan(shared("cases/thorax-imrt/RTPLAN_Hashed.dcm")), "Versa HD")
    assert {violation.limit for violation in report} >= {"jaws"}
    with pytest.raises(InputError, match="cannot deliver"):
        report.raise_for_errors()


def arc(**changes):
    """An arc of nine segments that TrueBeam can deliver, with changes to one control point: {index: {name: value}}."""
    leaves = np.tile([0.0, 0.0], (60, 1))
    leaves[25:35] = [-20.0, 20.0]
    leaves[25:35] += np.linspace(-3, 3, 10)[:, None]
    points = []
    for index in range(10):
        moved = leaves.copy()
        moved[25:35] += index
        point = ControlPoint(
            8.0 * index, (200.0 + 10.0 * index) % 360, 10.0, 0.0, [0, 0, 0], [-40, 45], [-25, 25], moved, "CW"
        )
        points.append(replace(point, **changes.get(f"point{index}", {})))
    return DeliveryPlan("arc", (TreatmentField("1", 1, tuple(points), 1000.0, EDGES, energy=6.0),))


def with_leaf(index, pair, ends):
    leaves = arc().fields[0].points[index].leaves.copy()
    leaves[pair] = ends
    return {f"point{index}": {"leaves": leaves}}


def test_the_arc_itself_passes():
    report = check_delivery(arc(), "TrueBeam")
    assert report.violations == ()
    assert report.scores()["mu"] == 72.0
    assert report.beam_on == pytest.approx(9 * 10.0 / 6.0)


@pytest.mark.parametrize(
    ("changes", "limit", "where", "leaf"),
    [
        (with_leaf(4, 30, [5.0, 5.3]), "dynamic_gap", 4, 31),
        (with_leaf(4, 30, [-202.0, 5.0]), "leaf_travel", 4, 31),
        (with_leaf(4, 5, [-140.0, -139.0]), "bank_span", 0, None),
        ({"point4": {"jaws_x": np.asarray([21.0, 45.0])}}, "jaws", 4, None),
        ({"point4": {"gantry": 220.0}}, "arc_stops", 3, None),
        ({"point9": {"gantry": 185.0}}, "arc_stops", 8, None),
        ({"point4": {"direction": "NONE"}}, "direction", 4, None),
        ({"point5": {"meterset": 32.5}}, "mu_per_degree", 4, None),
        ({"point4": {"collimator": 12.0}}, "collimator", 3, None),
        ({"point4": {"couch": 2.0}}, "couch", 3, None),
        ({"point4": {"isocenter": np.asarray([0.0, 1.0, 0.0])}}, "isocenter", 3, None),
    ],
)
def test_every_limit_is_judged(changes, limit, where, leaf):
    report = check_delivery(arc(**changes), "TrueBeam")
    matching = [violation for violation in report if violation.limit == limit]
    assert matching, f"{limit} not found among {[str(v) for v in report]}"
    assert (matching[0].field, matching[0].control_point, matching[0].leaf) == (1, where, leaf)
    assert f"field 1, control point {where}" in str(matching[0])


def test_limits_of_one_linac_only():
    judged = {
        "jaw_tracking": (replace(TRUEBEAM, jaw_tracking=False), {"point4": {"jaws_x": np.asarray([-41.0, 45.0])}}),
        "neighbour_gap": (replace(TRUEBEAM, neighbour_gap=10.0), with_leaf(4, 30, [30.0, 42.0])),
        "gantry_speed_least": (replace(TRUEBEAM, gantry_speed_least=5.9), with_leaf(4, 30, [-60.0, 20.0])),
        "mlc": (library_limits("TrueBeam STx"), {}),
    }
    for limit, (limits, changes) in judged.items():
        assert limit in {violation.limit for violation in check_delivery(arc(**changes), limits)}, limit


def test_shapes_need_monitor_units():
    points = [ControlPoint(mu, 0.0, 0.0, 0.0, [0, 0, 0], [-40, 40], [-40, 40]) for mu in (0.0, 50.0, 50.4)]
    plan = DeliveryPlan("a", (TreatmentField("1", 1, tuple(points), 1000.0),))
    assert [violation.limit for violation in check_delivery(plan, "TrueBeam")] == ["segment_mu"]


def test_unknown_linac():
    with pytest.raises(UnknownNameError, match="TrueBeam"):
        check_delivery(arc(), "TruBeam")


def test_complexity_by_hand():
    """Two pairs of 5 mm, two shapes of equal MU: areas 1 and 1/2 of the whole; ends equal, then apart by all of it."""
    wide = [[-10.0, 10.0], [-10.0, 10.0]]
    half = [[-10.0, 0.0], [0.0, 10.0]]
    points = [
        ControlPoint(m, 0.0, 0.0, 0.0, [0, 0, 0], leaves=ends)
        for m, ends in ((0.0, wide), (10.0, wide), (10.0, half), (20.0, half))
    ]
    field = TreatmentField("a", 1, tuple(points), 1000.0, [-5.0, 0.0, 5.0])
    scores = field_complexity(field)
    assert (scores.leaf_sequence, scores.aperture_area, scores.modulation) == (0.5, 0.75, 0.5)
    covered = [replace(point, jaws_y=np.asarray([-5.0, 0.0])) for point in points]
    alone = field_complexity(replace(field, points=tuple(covered)))
    assert alone.leaf_sequence == 1.0  # the jaw covers the second pair
    assert alone.aperture_area == pytest.approx(0.75)
    assert plan_complexity(DeliveryPlan("p", (field,))) == scores
    assert not math.isnan(field_complexity(replace(field, points=tuple(points[:2]))).modulation)
