"""Fluence plans as fields: rows on leaf pairs, jaws, parked leaves, monitor units, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from radplan.beams import Beams, place_beams
from radplan.delivery.sequencing import METHODS, fluence_map, sequence
from radplan.delivery.timing import segment_times
from radplan.errors import InputError, UnknownNameError
from radplan.machines import library_machine, library_mlc, limits_for
from radplan.patient.phantoms import phantom

LINAC = library_machine("generic_photon_6mv")
MLCS = ("Millennium 120", "HD 120", "Agility")


@dataclass(frozen=True, eq=False)
class Weights:
    """A plan as `sequence` sees it."""

    x: np.ndarray
    beams: Beams
    fractions: int = 25


@pytest.fixture(scope="module")
def patient():
    return phantom("tg119")


@pytest.fixture(scope="module", params=MLCS)
def placed(request, patient):
    beams = place_beams(patient, LINAC, gantry=(0.0, 180.0), collimator=(0.0, 30.0), bixel_width=5.0, mlc=request.param)
    smooth = [100.0 * np.exp(-((beam.bixels / 40.0) ** 2).sum(axis=1)) for beam in beams]
    return Weights(np.concatenate(smooth), beams), library_mlc(request.param)


def delivered(field, mlc, edges):
    """Fluence of every pair and column (pairs, columns): leaf ends move linearly, rounded ends let more through."""
    given = np.zeros((mlc.pairs, edges.size - 1))
    for segment in field.segments:
        for part in (np.arange(20) + 0.5) / 20:
            ends = (1 - part) * segment.start.leaves + part * segment.end.leaves
            low = np.maximum((ends[:, 0] - mlc.leaf_offset)[:, None], edges[:-1])
            high = np.minimum((ends[:, 1] + mlc.leaf_offset)[:, None], edges[1:])
            share = np.maximum(high - low, 0.0) / np.diff(edges)
            given += segment.mu / 20 * (mlc.transmission + (1 - mlc.transmission) * share)
    return given


@pytest.mark.parametrize("method", METHODS)
def test_fields_give_the_fluence(placed, method):
    plan, mlc = placed
    delivery = sequence(plan, mlc, method, levels=40)
    assert [field.technique for field in delivery] == (
        ["dynamic", "dynamic"] if method == "sliding_window" else ["step and shoot", "step and shoot"]
    )
    assert delivery.fractions == 25
    assert delivery.patient_position == "HFS"
    parts = np.split(plan.x, [plan.beams[0].count])
    for field, beam, weights in zip(delivery, plan.beams, parts, strict=True):
        wanted = fluence_map(beam, weights, mlc)
        some = wanted.values > 0
        error = (delivered(field, mlc, wanted.edges) - wanted.values)[some]
        assert np.sqrt(np.mean(error**2)) <= 0.02 * weights.max()
        assert (field.energy, field.sad, field.points[0].collimator) == (6.0, 1000.0, beam.collimator)


@pytest.mark.parametrize("method", METHODS)
def test_fields_keep_gap_span_and_jaws(placed, method):
    plan, mlc = placed
    limits = limits_for(mlc)
    for field in sequence(plan, mlc, method):
        leaves = np.stack([point.leaves for point in field.points])
        assert np.max(np.ptp(leaves, axis=1)) <= limits.bank_span
        moving = (
            np.any(np.diff(leaves, axis=0) != 0, axis=2) & (np.diff([p.meterset for p in field.points]) > 0)[:, None]
        )
        gaps = np.diff(leaves, axis=2)[..., 0]
        assert np.min(gaps) >= limits.static_gap
        for ends in (gaps[:-1], gaps[1:]):
            assert np.all(ends[moving] >= limits.dynamic_gap - 1e-9)
        times = segment_times(field, limits)
        if method == "sliding_window":
            # Why: rounding to 0.01 mm adds a step to a move, far below the margin kept.
            assert set(times.slowest) <= {"dose rate", "leaves"}
            assert times.total <= 1.05 * segment_times(field, limits.planning()).total
        point = field.points[0]
        if limits.jaw_bounds(0) is None:
            assert point.jaws_x is None
        else:
            closed = gaps == 0
            behind = (leaves[..., 1] < point.jaws_x[0]) | (leaves[..., 0] > point.jaws_x[1])
            low, high = mlc.boundaries[:-1], mlc.boundaries[1:]
            covered = (high <= point.jaws_y[0]) | (low >= point.jaws_y[1])
            assert np.all(behind[closed] | np.broadcast_to(covered, closed.shape)[closed])


def test_rows_lie_on_leaf_pairs(patient):
    for name, width in (("Millennium 120", 5.0), ("HD 120", 2.5), ("HD 120", 5.0), ("Agility", 10.0)):
        mlc = library_mlc(name)
        beam = place_beams(patient, LINAC, gantry=0.0, bixel_width=width, mlc=mlc)[0]
        for y in np.unique(beam.bixels[:, 1]):
            assert not mlc.straddles(y - width / 2, y + width / 2)
        assert np.any(np.abs(beam.bixels[:, 0]) < 1e-9)  # columns stay centred on the axis
    # The bixels cover what they cover without leaves.
    free = place_beams(patient, LINAC, gantry=0.0, bixel_width=5.0)[0].bixels
    aligned = place_beams(patient, LINAC, gantry=0.0, bixel_width=5.0, mlc="Agility")[0].bixels
    assert aligned[:, 1].min() - 2.5 <= free[:, 1].min()
    assert aligned[:, 1].max() + 2.5 >= free[:, 1].max()


def test_wide_pairs_get_all_their_rows(patient):
    lifted = patient.structures["OuterTarget"].grid.points(patient.structures["OuterTarget"].voxels).mean(axis=0)
    lifted[2] -= 110.0
    mlc = library_mlc("Millennium 120")
    beam = place_beams(patient, LINAC, gantry=0.0, isocenter=lifted, bixel_width=5.0, mlc=mlc)[0]
    assert beam.bixels[:, 1].max() > 100.0
    fluence = fluence_map(beam, np.ones(beam.count), mlc)
    assert set(np.unique(fluence.values)) <= {0.0, 1.0}


def test_what_cannot_be_sequenced(patient, placed):
    plan, mlc = placed
    with pytest.raises(UnknownNameError, match="did you mean 'siochi'"):
        sequence(plan, mlc, "sioch")
    with pytest.raises(InputError, match="nothing to sequence"):
        sequence(replace(plan, x=np.zeros_like(plan.x)), mlc)
    with pytest.raises(InputError, match="does not know its beams"):
        sequence(replace(plan, beams=None), mlc)
    with pytest.raises(InputError, match="no monitor units"):
        sequence(plan, mlc, machine=replace(LINAC, reference=None))
    with pytest.raises(InputError, match="not in the library"):
        sequence(replace(plan, beams=replace(plan.beams, machine="ours")), mlc)
    straddling = place_beams(patient, LINAC, gantry=0.0, bixel_width=5.0)
    with pytest.raises(InputError, match=r"straddles leaves of MLC .*place_beams\(..., mlc=\)"):
        sequence(Weights(np.ones(straddling.count), straddling), mlc)
    with pytest.raises(InputError, match=r"rows of bixels of 4 mm straddle .* widths that fit: .*5"):
        place_beams(patient, LINAC, gantry=0.0, bixel_width=4.0, mlc=mlc)
    with pytest.raises(InputError, match="aligns bixels of photons"):
        place_beams(patient, library_machine("generic_proton"), gantry=0.0, mlc=mlc)


def test_a_beam_without_weights_is_left_out(placed):
    plan, mlc = placed
    weights = plan.x.copy()
    weights[: plan.beams[0].count] = 0.0
    delivery = sequence(replace(plan, x=weights), mlc)
    assert [field.number for field in delivery] == [2]


@pytest.mark.parametrize("method", ["siochi", "sliding_window"])
def test_wide_fields_are_split_and_cross_fade(placed, method):
    plan, mlc = placed
    if np.isinf(limits_for(mlc).bank_span):
        assert len(sequence(plan, mlc, method).fields) == len(plan.beams)  # leaves reach anywhere: nothing to split
        return
    tight = replace(limits_for(mlc), bank_span=75.0)
    delivery = sequence(plan, mlc, method, levels=40, limits=tight)
    assert len({field.number for field in delivery}) == len(delivery.fields) > len(plan.beams)
    for field in delivery:
        for point in field.points:
            assert np.max(np.ptp(point.leaves, axis=0)) <= tight.bank_span
    wanted = fluence_map(plan.beams[0], plan.x[: plan.beams[0].count], mlc)
    parts = [field for field in delivery if field.points[0].gantry == plan.beams[0].gantry]
    assert [field.name for field in parts[:2]] == ["1a G0", "1b G0"]
    given = np.zeros_like(wanted.values)
    for field in parts:
        shown = delivered(field, mlc, wanted.edges)
        jaws = field.points[0].jaws_x
        if jaws is not None:  # leaves leak within the jaws only
            shown[:, (wanted.edges[1:] <= jaws[0]) | (wanted.edges[:-1] >= jaws[1])] = 0.0
        given += shown
    some = wanted.values > 0
    assert np.sqrt(np.mean((given - wanted.values)[some] ** 2)) <= 0.02 * wanted.values.max()


def test_fields_that_do_not_fit_the_limits(placed):
    plan, mlc = placed
    tight = replace(limits_for(mlc), bank_span=50.0)
    with pytest.raises(InputError, match="cannot be split"):
        sequence(plan, mlc, limits=tight)
    other = "Versa HD" if mlc.name != "Agility" else "TrueBeam"
    with pytest.raises(InputError, match="has the collimator"):
        sequence(plan, mlc, limits=other)
    if limits_for(mlc).jaw_bounds(0) is None:
        return
    short = replace(limits_for(mlc), jaw_past_axis=(20.0, 20.0), jaw_outward=(30.0, 30.0))
    with pytest.raises(InputError, match="X jaws"):
        sequence(plan, mlc, limits=short)


def test_public_name():
    import radplan

    assert radplan.sequence is sequence
