"""Structures as text: what it means and what it refuses; structures and densities added to a patient."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace

import numpy as np
import pytest

from radplan.errors import InputError, RadplanError
from radplan.geometry.grid import Grid
from radplan.patient import (
    CT,
    Patient,
    Structure,
    contract,
    difference,
    evaluate_expression,
    expand,
    intersection,
    parse_expression,
    phantom,
    ring,
    symmetric_difference,
    union,
)

GRID = Grid((20, 40, 40), (2.0, 2.0, 3.0), (-39.0, -39.0, -28.5))


def block(name, x, y=(-15, 15), z=(-15, 15), role="oar"):
    at = GRID.points()
    inside = np.ones(len(at), dtype=bool)
    for axis, (low, high) in enumerate((x, y, z)):
        inside &= (at[:, axis] > low) & (at[:, axis] < high)
    return Structure(name, GRID, np.flatnonzero(inside), role=role)


HELD = {
    s.name: s
    for s in (
        block("PTV4140", (-20, 4), role="target"),
        block("LUNGS", (0, 30)),
        block("CTVp", (-16, 0)),
        block("Femoral Head Lt", (10, 16)),
        block("ring", (20, 26)),
        block("a-b", (-30, -24)),
    )
}
PTV, LUNGS, CTV, HEAD = (HELD[n] for n in ("PTV4140", "LUNGS", "CTVp", "Femoral Head Lt"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PTV4140", PTV),
        ("PTV4140 - (LUNGS + 5 mm)", difference(PTV, expand(LUNGS, 5.0))),
        ("PTV4140-LUNGS+5mm", difference(PTV, expand(LUNGS, 5.0))),
        ("PTV4140 - 0.4 cm", contract(PTV, 4.0)),
        ("PTV4140 & LUNGS | CTVp", union(intersection(PTV, LUNGS), CTV)),
        ("CTVp | PTV4140 & LUNGS", union(CTV, intersection(PTV, LUNGS))),
        ("PTV4140 - CTVp - LUNGS", difference(PTV, CTV, LUNGS)),
        ("PTV4140 - (CTVp - LUNGS)", difference(PTV, difference(CTV, LUNGS))),
        ("PTV4140 ^ LUNGS", symmetric_difference(PTV, LUNGS)),
        ("ring(PTV4140, 5 mm, 10 mm)", ring(PTV, 5.0, 10.0)),
        ("ring(PTV4140 | LUNGS, -2 mm, 0.5 cm)", ring(union(PTV, LUNGS), -2.0, 5.0)),
        ("margin(CTVp, 5 mm, P 3 mm, S 8 mm)", expand(CTV, {"L": 5, "R": 5, "A": 5, "P": 3, "S": 8, "I": 5})),
        ("margin(CTVp, L 4 mm)", expand(CTV, {"L": 4})),
        ("margin(CTVp, -4 mm)", contract(CTV, 4.0)),
        ("PTV4140 + 6 mm - 6 mm", contract(expand(PTV, 6.0), 6.0)),
        ('"Femoral Head Lt" & LUNGS', intersection(HEAD, LUNGS)),
        ("LUNGS - 'Femoral Head Lt'", difference(LUNGS, HEAD)),
        ("Femoral Head Lt", HEAD),
        ("a-b", HELD["a-b"]),
        ("ring | CTVp", union(HELD["ring"], CTV)),
        ("((PTV4140))", PTV),
    ],
)
def test_text_means_the_structure(text, expected):
    found = evaluate_expression(text, HELD)
    assert found.name == text
    assert found.voxels.tolist() == expected.voxels.tolist()
    assert (found.fraction is None) == (expected.fraction is None)
    if expected.fraction is not None:
        assert found.fraction == pytest.approx(expected.fraction)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("PTV4140 - LUNG", "position 11: no structure named 'LUNG'; did you mean 'LUNGS'?"),
        ("ptv4140", "position 1: no structure named 'ptv4140'; did you mean 'PTV4140'?"),
        ("PTV4140 -", "position 10: expected the name of a structure or '(', found the end of the text"),
        ("PTV4140 + LUNGS", "position 11: expected a distance such as 5 mm after '+' (structures are joined by '|')"),
        ("PTV4140 + 5", "position 12: expected the unit of the distance, mm or cm, found the end of the text"),
        ("PTV4140 + 5 inch", "position 13: expected the unit of the distance, mm or cm, found 'inch'"),
        ("(PTV4140 - LUNGS", "position 17: expected ')' to close the parenthesis"),
        ("PTV4140) - LUNGS", "position 8: expected an operator (|, &, -, ^, +) or the end, found ')'"),
        ("Femoral Head Lt - LUNGS", "position 9: expected an operator (|, &, -, ^, +) or the end, found 'Head'; names"),
        ("Femoral Head Lt - LUNGS", 'need quotes, such as "Femoral Head Lt"'),
        ("PTV4140 / LUNGS", "position 9: found '/', which has no meaning here"),
        ('"PTV4140 - LUNGS', "position 1: found a quote that is not closed"),
        ("ring(PTV4140, 5 mm)", "position 19: expected ',' and the distance where the ring ends, found ')'"),
        ("ring(PTV4140, 9 mm, 3 mm)", "position 21: a ring must end farther out than it begins, got 9 mm to 3 mm"),
        ("rind(PTV4140, 5 mm, 9 mm)", "position 1: expected ring(...), margin(...) or an operator before '('"),
        ("margin(PTV4140, X 3 mm)", "position 17: expected a direction, one of L, R, A, P, S, I, found 'X'"),
        ("margin(PTV4140, 5 mm, P -3 mm)", "position 15: a margin cannot grow to one side and shrink on another"),
        ("__import__('os')", "position 1: expected ring(...), margin(...) or an operator before '('"),
        ("", "must be a text such as"),
        ("(" * 200 + "PTV4140" + ")" * 200, "nested deeper than 50"),
    ],
)
def test_errors_name_the_position_and_the_nearest_name(text, message):
    with pytest.raises(InputError, match=re.escape(message)):
        evaluate_expression(text, HELD)


def test_no_text_does_anything_but_mean_or_raise(rng):
    pieces = [
        "PTV4140",
        "LUNGS",
        "ring",
        "margin",
        "(",
        ")",
        ",",
        "+",
        "-",
        "&",
        "|",
        "^",
        "5",
        "mm",
        "cm",
        '"',
        "P",
        " ",
    ]
    for _ in range(2000):
        text = "".join(rng.choice(pieces, size=rng.integers(1, 9)))
        with contextlib.suppress(RadplanError):
            assert parse_expression(text).names


def test_names_are_known_before_anything_is_calculated():
    assert parse_expression("ring(B, 1 mm, 2 mm) - (A & B) + 3 mm").names == ("B", "A")


def patient():
    hu = np.full(GRID.shape, -1000.0)
    body = block("BODY", (-34, 34), (-30, 20), (-40, 40), role="external")
    hu.reshape(-1)[body.voxels] = 0.0
    return Patient("test", CT(GRID, hu), [*HELD.values(), body])


def test_a_patient_takes_a_structure_written_as_text():
    more = patient().with_structure("Avoid", "PTV4140 - (LUNGS + 5 mm)", role="target", priority=3)
    made = more.structures["Avoid"]
    assert (made.role, made.priority, list(more.structures)[-1]) == ("target", 3, "Avoid")
    assert made.volume == pytest.approx(difference(PTV, expand(LUNGS, 5.0)).volume)
    assert more.with_structure("Shell", "ring(Avoid, 2 mm, 6 mm) & BODY").structures["Shell"].role == "oar"
    assert "Avoid" not in patient().structures
    with pytest.raises(InputError, match="already has a structure 'LUNGS'"):
        more.with_structure("LUNGS", "PTV4140")
    with pytest.raises(InputError, match="did you mean 'LUNGS'"):
        more.with_structure("x", "PTV4140 - LUNG")


def test_a_patient_takes_a_structure_from_another_grid():
    fine = Grid((60, 80, 80), (1.0, 1.0, 1.0), (-39.5, -39.5, -29.5))
    ball = Structure("Ball", fine, np.flatnonzero(np.linalg.norm(fine.points(), axis=1) < 8), role="target", priority=2)
    made = patient().with_structure("GTV", ball).structures["GTV"]
    assert (made.name, made.role, made.priority, made.grid) == ("GTV", "target", 2, GRID)
    assert made.volume == pytest.approx(ball.volume, rel=2e-3)


def test_an_empty_structure_is_announced(caplog):
    made = patient().with_structure("Nothing", "CTVp & 'a-b'")
    assert made.structures["Nothing"].voxels.size == 0
    assert "structure Nothing of patient test is empty" in caplog.text


def test_the_found_outline_may_be_named(caplog):
    bare = patient()
    bare = replace(bare, structures=[s for s in bare.structures.values() if s.role != "external"])
    skin = bare.with_structure("Skin", "external - (external - 4 mm)").structures["Skin"]
    assert 0 < skin.volume < bare.external.volume
    assert "no external contour" in caplog.text


def test_given_densities_replace_the_ct():
    case = patient()
    dense = case.with_density("LUNGS", 0.26).with_density("LUNGS & CTVp", hu=0.0).with_density("CTVp", density=1.5)
    found = dense.density().reshape(-1)
    assert found[CTV.voxels] == pytest.approx(1.5)
    assert found[difference(LUNGS, CTV).voxels] == pytest.approx(0.26)
    assert found[block("rest", (-34, -25), (-30, 20)).voxels] == pytest.approx(1.0)
    assert case.density().reshape(-1)[CTV.voxels] == pytest.approx(1.0)


def test_couch_and_bolus_count_outside_the_body():
    couch = block("Couch", (-34, 34), (24, 32), (-40, 40))
    case = patient().with_density(couch, 0.4)
    assert case.density().reshape(-1)[couch.voxels] == pytest.approx(0.4)
    assert not np.isin(couch.voxels, case.body_voxels(GRID)).all()
    assert "Couch" not in case.structures


def test_partial_voxels_mix_densities():
    bolus = Structure("Bolus", GRID, np.asarray([0, CTV.voxels[0]]), np.asarray([0.25, 0.25]))
    found = patient().with_density(bolus, 2.0).density().reshape(-1)
    assert found[[0, CTV.voxels[0]]] == pytest.approx([0.5, 1.25])


def test_an_override_repairs_what_the_hu_table_does_not_cover():
    case = patient()
    hu = np.array(case.ct.hu)
    hu.reshape(-1)[HEAD.voxels] = 9000.0
    metal = replace(case, ct=CT(GRID, hu), hu_table=replace(case.hu_table, clip=False))
    with pytest.raises(InputError, match="HU 9000 at voxel"):
        metal.density()
    assert metal.with_density("Femoral Head Lt", 3.8).density().max() == pytest.approx(3.8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give either a density or a Hounsfield unit"),
        ({"density": 1.0, "hu": 0.0}, "give either a density or a Hounsfield unit"),
        ({"density": -0.1}, "density of 'LUNGS' must be a number >= 0"),
        ({"density": float("nan")}, "density of 'LUNGS' must be a number >= 0"),
        ({"hu": 9000.0}, "HU 9000 .* lies outside the HU table"),
    ],
)
def test_impossible_densities_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        patient().with_density("LUNGS", **given)


def test_a_phantom_plans_with_a_ring():
    assert phantom("tg119").with_structure("Shell", "ring(OuterTarget, 5 mm, 15 mm)").structures["Shell"].volume > 0
