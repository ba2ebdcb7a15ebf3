"""Structures from structures: set algebra, partial voxels, rings."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.patient import Structure, difference, intersection, ring, symmetric_difference, union

LINE = Grid((1, 1, 10), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))


def on_line(name, filled, **kwargs):
    part = np.asarray(filled, dtype=float)
    voxels = np.flatnonzero(part)
    return Structure(name, LINE, voxels, part[voxels], **kwargs)


def parts(structure):
    part = np.zeros(structure.grid.size)
    part[structure.voxels] = 1.0 if structure.fraction is None else structure.fraction
    return part.tolist()


A = on_line("a", [0.25, 1, 1, 0.5, 0, 0, 0, 0, 0, 0.75])
B = on_line("b", [0, 0.5, 1, 0.75, 1, 0, 0, 0, 0, 0.75])


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (union, [0.25, 1, 1, 0.75, 1, 0, 0, 0, 0, 0.75]),
        (intersection, [0, 0.5, 1, 0.5, 0, 0, 0, 0, 0, 0.75]),
        (difference, [0.25, 0.5, 0, 0, 0, 0, 0, 0, 0, 0]),
        (symmetric_difference, [0.25, 0.5, 0, 0.25, 1, 0, 0, 0, 0, 0]),
    ],
)
def test_partial_voxels_share_as_much_as_they_can(operation, expected):
    assert parts(operation(A, B)) == pytest.approx(expected)


def test_volumes_add_up(rng):
    one, two = (on_line(name, np.clip(rng.uniform(-0.5, 1.5, 10), 0, 1)) for name in "cd")
    common = intersection(one, two).volume
    assert union(one, two).volume == pytest.approx(one.volume + two.volume - common, abs=0.01)
    assert difference(one, two).volume == pytest.approx(one.volume - common, abs=0.01)
    assert symmetric_difference(one, two).volume == pytest.approx(one.volume + two.volume - 2 * common, abs=0.01)


def test_whole_voxels_follow_set_algebra(rng):
    sets = [np.flatnonzero(rng.uniform(size=10) < 0.5) for _ in range(3)]
    one, two, three = (Structure(name, LINE, voxels) for name, voxels in zip("abc", sets, strict=True))
    assert set(union(one, two, three).voxels) == set(sets[0]) | set(sets[1]) | set(sets[2])
    assert set(difference(one, two, three).voxels) == set(sets[0]) - set(sets[1]) - set(sets[2])
    assert set(intersection(one, two, three).voxels) == set(sets[0]) & set(sets[1]) & set(sets[2])
    assert union(one, two, three).fraction is None


def test_the_result_is_an_organ_at_risk_named_by_what_was_done():
    target = on_line("PTV", [1, 1, 0, 0, 0, 0, 0, 0, 0, 0], role="target", priority=1, alpha_x=0.3, color=(1, 0, 0))
    made = difference(target, A)
    assert (made.name, made.role, made.priority, made.alpha_x, made.color) == ("PTV - a", "oar", None, 0.3, None)
    assert union(A, B, name="both").name == "both"


def test_nothing_is_a_structure_too():
    assert difference(A, A).voxels.size == 0
    nothing = difference(A, A)
    assert parts(union(nothing, B)) == pytest.approx(parts(B))
    assert intersection(nothing, B).volume == 0


def test_grids_must_be_the_same():
    other = Structure("other", Grid((1, 1, 10), (2.0, 1.0, 1.0), (0.0, 0.0, 0.0)), np.asarray([1]))
    with pytest.raises(InputError, match="structures 'a' and 'other' lie on different grids"):
        union(A, other)


def test_a_ring_lies_between_its_distances():
    grid = Grid((31, 61, 61), (1.0, 1.0, 2.0), (-30.0, -30.0, -30.0))
    radius = np.linalg.norm(grid.points(), axis=1)
    ball = Structure("ball", grid, np.flatnonzero(radius <= 10))
    shell = ring(ball, 5.0, 12.0)
    held = np.linalg.norm(grid.points(shell.voxels), axis=1)
    assert 13.5 < held.min() < 15.5
    assert 21.5 < held.max() < 24.0
    assert shell.volume == pytest.approx(4 / 3 * np.pi * (22**3 - 15**3), rel=0.05)
    skin = ring(ball, -3.0, 0.0)
    assert skin.volume == pytest.approx(4 / 3 * np.pi * (10**3 - 7**3), rel=0.08)
    assert shell.name == "ring(ball)"
    with pytest.raises(InputError, match="must end farther out than it begins, got 5 mm to 3 mm"):
        ring(ball, 5.0, 3.0)
