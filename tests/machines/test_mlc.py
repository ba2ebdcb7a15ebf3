"""Multileaf collimators: counts, spans and names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from radplan.errors import InputError, UnknownNameError
from radplan.machines.limits import library_limits
from radplan.machines.mlc import MLCS, library_mlc, matching_mlc


@pytest.mark.parametrize(
    ("name", "pairs", "half", "widths"),
    [("Millennium 120", 60, 200.0, {5.0: 40, 10.0: 20}), ("HD 120", 60, 110.0, {2.5: 32, 5.0: 28}),
     ("Agility", 80, 200.0, {5.0: 80})],
)  # fmt: skip
def test_leaves_are_as_the_vendors_state(name, pairs, half, widths):
    one = library_mlc(name)
    assert one.pairs == pairs
    assert one.boundaries[[0, -1]].tolist() == [-half, half]
    values, counts = np.unique(one.widths, return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == widths
    assert matching_mlc(one.boundaries) is one
    assert one.provenance


def test_names_are_folded_and_near_misses_are_offered():
    assert library_mlc("hd-120") is MLCS["HD 120"]
    with pytest.raises(UnknownNameError, match="did you mean 'Agility'"):
        library_mlc("Agilty")


def test_leaf_bounds_are_mirrored():
    assert library_limits("Versa HD").leaf_bounds == ((-200.0, 150.0), (-150.0, 200.0))


def test_unknown_boundaries_say_what_to_do():
    with pytest.raises(InputError, match="no known multileaf collimator has 2 pairs from -10 to 10 mm"):
        matching_mlc([-10.0, 0.0, 10.0])


@pytest.mark.parametrize("wrong", [{"transmission": 1.0}, {"leaf_offset": -1.0}, {"boundaries": [0.0, 0.0]}])
def test_impossible_values_are_refused(wrong):
    with pytest.raises(InputError, match="MLC 'Agility'"):
        replace(library_mlc("Agility"), **wrong)
