"""Limits of linacs: the library against published numbers and the collimators, a clinic's own file, hostile files."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest

from radplan.errors import FileError, InputError, UnknownNameError
from radplan.machines import (
    MLC,
    MachineLimits,
    leaf_limits,
    library_limits,
    library_mlc,
    limits_for,
    machine_limits,
    read_limits,
)
from radplan.machines.limits import LIBRARY


@pytest.mark.parametrize(
    ("name", "mlc", "speed", "gap", "span", "flat"),
    [
        ("TrueBeam", "Millennium 120", 25.0, 0.5, 150.0, 600.0),
        ("TrueBeam STx", "HD 120", 25.0, 0.5, 150.0, 600.0),
        # Bedford, Thomas, Smyth, J. Appl. Clin. Med. Phys. 14 (2013) 159
        ("Versa HD", "Agility", 35.0, 1.0, math.inf, 600.0),
    ],
)
def test_published_numbers(name, mlc, speed, gap, span, flat):
    limits = library_limits(name)
    assert (limits.mlc, limits.leaf_speed, limits.dynamic_gap, limits.bank_span) == (mlc, speed, gap, span)
    assert limits.dose_rate(6.0) == flat
    assert limits.arc_stops == (181.0, 179.0)
    assert limits_for(mlc) == limits


def test_limits_of_a_collimator():
    """Those of the first linac that has it, those given, none for one of one's own; never another collimator's."""
    agility, own = library_mlc("Agility"), MLC("ours", [-5.0, 0.0, 5.0], 0.01, 0.0)
    assert leaf_limits(agility).name == "Versa HD"
    assert leaf_limits(own) is None
    assert leaf_limits(None) is None
    stated = replace(library_limits("Versa HD"), mlc="ours", dynamic_gap=3.5)
    assert leaf_limits(own, stated).dynamic_gap == 3.5
    with pytest.raises(InputError, match="has the collimator Millennium 120, not 'Agility'"):
        leaf_limits(agility, "TrueBeam")


@pytest.mark.parametrize("name", sorted(read_limits(LIBRARY)))
def test_every_number_has_a_source(name):
    limits = library_limits(name)
    stated = set(limits.provenance)
    unstated = {"name", "margin", "provenance", "static_gap", "leaf_step", "angle_step", "mu_step"}
    for item in fields(MachineLimits):
        label = "jaws" if item.name.startswith("jaw") else item.name
        assert label in stated or item.name in unstated, item.name


def test_planning_keeps_the_margin():
    limits = library_limits("Versa HD").planning()
    assert limits.leaf_speed == pytest.approx(0.95 * 35.0)
    assert limits.dose_rate(10.0, "FFF") == pytest.approx(0.95 * 2200.0)
    assert limits.jaw_speed[0] is None
    assert limits.planning() == limits


def test_jaws_go_past_the_axis_and_out():
    limits = library_limits("TrueBeam")
    assert limits.jaw_bounds(0) == ((-200.0, 20.0), (-20.0, 200.0))
    assert library_limits("Versa HD").jaw_bounds(0) is None


def test_a_clinic_overrides_what_differs(tmp_path):
    path = tmp_path / "ours.yaml"
    path.write_text("Ours: {based_on: Versa HD, dynamic_gap: 3.5, provenance: {dynamic_gap: our acceptance test}}\n")
    ours = machine_limits(path)
    assert ours == replace(library_limits("Versa HD"), name="Ours", dynamic_gap=3.5, provenance=ours.provenance)
    assert ours.provenance["dynamic_gap"] == "our acceptance test"
    assert ours.provenance["leaf_speed"].startswith("35 mm/s")
    path.write_text("Ours: {based_on: Versa HD, dynamic_gap: 5.0}\n")
    assert machine_limits(str(path)).dynamic_gap == 5.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Ours: {based_on: TrueBeam, leaf_sped: 30}", "'leaf_sped' is no limit"),
        ("Ours: {based_on: TrueBeam, leaf_speed: -1}", "leaf_speed must be > 0, got -1"),
        ("Ours: {mlc: Agility}", "missing"),
        ("Ours: {based_on: TrueBeam, leaf_speed: fast}", "Ours: "),
        ("- 1", "must hold the name of a linac"),
        ("Ours: {a: [", "no valid YAML"),
        ("A: {based_on: TrueBeam}\nB: {based_on: A}", "limits of A, B; expected those of one linac"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, content, message):
    path = tmp_path / "ours.yaml"
    path.write_text(content)
    with pytest.raises(FileError, match=message):
        machine_limits(path)


def test_names_that_are_not_known():
    with pytest.raises(UnknownNameError, match="did you mean 'TrueBeam'"):
        machine_limits("TruBeam")
    with pytest.raises(FileError, match="cannot be read"):
        machine_limits("nowhere.yaml")
    with pytest.raises(InputError, match="no dose rate for 15 FFF"):
        library_limits("TrueBeam").dose_rate(15.0, "FFF")
    with pytest.raises(InputError, match="mu_per_degree"):
        replace(library_limits("TrueBeam"), mu_per_degree=(2.0, 1.0))
