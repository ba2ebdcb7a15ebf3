"""RT Ion Plans read: every spot as the file has it, techniques refused by name, files that contradict themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from radplan.beams.scanned import ScannedPlan, check_spots, spot_beams
from radplan.commissioning.protons import particle_machine_from_beam_model
from radplan.errors import FileError, InputError
from radplan.io.dicom import is_ion_plan, read_ion_plan
from radplan.io.dicom.rtplan import read_plan
from radplan.machines import at_energies

OUTSIDE = Path(__file__).parents[1] / "data" / "outside"
PLAN = OUTSIDE / "dcpt_plan02.dcm"


@pytest.fixture(scope="module")
def machine():
    return particle_machine_from_beam_model(OUTSIDE / "dcpt_beam_model.csv", energies=[150.0, 160.0])


def changed(tmp_path, change):
    dataset = pydicom.dcmread(PLAN)
    change(dataset, dataset.IonBeamSequence[0])
    path = tmp_path / "plan.dcm"
    dataset.save_as(path)
    return path


def same_as_the_file(path, plan: ScannedPlan):
    """Compare every spot with what pydicom reads, by the definition of the meterset weight."""
    dataset = pydicom.dcmread(path)
    units = {
        int(r.ReferencedBeamNumber): float(r.BeamMeterset)
        for r in dataset.FractionGroupSequence[0].ReferencedBeamSequence
    }
    for field, beam in zip(plan, dataset.IonBeamSequence, strict=True):
        layers, energy = iter(field.layers), None
        for point in beam.IonControlPointSequence:
            energy = float(point.NominalBeamEnergy) if "NominalBeamEnergy" in point else energy
            weights = np.atleast_1d(np.asarray(point.ScanSpotMetersetWeights, dtype=np.float64))
            if not weights.any():
                continue
            layer = next(layers)
            assert layer.energy == energy
            np.testing.assert_array_equal(
                layer.positions.reshape(-1), np.asarray(point.ScanSpotPositionMap, dtype=np.float64)
            )
            scale = units[field.number] / float(beam.FinalCumulativeMetersetWeight)
            np.testing.assert_allclose(layer.mu, weights * scale, rtol=1e-12)
            assert layer.tune == str(point.ScanSpotTuneID)
        assert next(layers, None) is None
        assert field.mu == pytest.approx(units[field.number], rel=1e-6)


def test_every_spot_of_a_clinical_plan():
    plan = read_ion_plan(PLAN)
    same_as_the_file(PLAN, plan)
    field = plan.fields[0]
    assert (plan.fractions, plan.patient_position, field.virtual_sad, field.count) == (1, "HFS", (2000.0, 2560.0), 323)
    assert field.isocenter.tolist() == [0.0, -80.0, 0.0]
    assert field.layers[0].spot_size == pytest.approx((9.788, 8.957), abs=1e-3)
    assert is_ion_plan(PLAN)
    assert not is_ion_plan(OUTSIDE / "README.md")
    with pytest.raises(FileError, match="proton or ion beams"):
        read_plan(PLAN)


@pytest.mark.parametrize(
    "name",
    [
        "plan01_sobp/RN.1.2.246.352.71.5.37402163639.178319.20221207095327.dcm",
        "plan01_sobp/RN.1.2.246.352.71.5.37402163639.178041.20221206101625.dcm",
        "plan03_ramp_full/ramped_2Gy_ver2_full.dcm",
    ],
)
def test_every_spot_of_other_clinical_plans(shared, name):
    path = shared(f"cases/dcpt-protons/{name}")
    same_as_the_file(path, read_ion_plan(path))


def test_weights_are_particles(machine):
    plan = read_ion_plan(PLAN)
    beams, weights = spot_beams(plan, machine)
    assert (beams.count, beams[0].gantry, beams[0].sad) == (323, 0.0, machine.sad)
    assert weights.sum() * 1e6 == pytest.approx(plan.mu * 3658874, rel=1e-9)
    twice = replace(plan, fields=(replace(plan.fields[0], layers=plan.fields[0].layers * 2),))
    again, double = spot_beams(twice, machine)
    assert again.count == 323
    np.testing.assert_allclose(double, 2 * weights)


def test_range_shifters_by_the_file_and_by_name(tmp_path):
    def add(dataset, beam, thickness=None):
        slab, setting = Dataset(), Dataset()
        slab.RangeShifterNumber, slab.RangeShifterID, slab.RangeShifterType = 1, "RS=3cm", "BINARY"
        setting.RangeShifterSetting, setting.IsocenterToRangeShifterDistance = "IN", 180.0
        setting.ReferencedRangeShifterNumber = 1
        if thickness is not None:
            setting.RangeShifterWaterEquivalentThickness = thickness
        beam.NumberOfRangeShifters, beam.RangeShifterSequence = 1, [slab]
        beam.IonControlPointSequence[0].RangeShifterSettingsSequence = [setting]

    shifter = read_ion_plan(changed(tmp_path, lambda d, b: add(d, b, 34.5))).fields[0].layers[0].range_shifter
    assert (shifter.thickness, shifter.isocenter_distance) == (34.5, 180.0)
    path = changed(tmp_path, add)
    with pytest.raises(FileError, match=r"range shifter RS=3cm.*RangeShifterWaterEquivalentThickness"):
        read_ion_plan(path)
    assert read_ion_plan(path, {"RS=3cm": 33.0}).fields[0].layers[0].range_shifter.thickness == 33.0


def point(beam, keyword, value, index=0):
    setattr(beam.IonControlPointSequence[index], keyword, value)


def modulator(dataset, beam):
    beam.NumberOfRangeModulators, beam.RangeModulatorSequence = 1, [Dataset()]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d, b: setattr(b, "ScanMode", "UNIFORM"), "uniform scanning"),
        (lambda d, b: setattr(b, "ScanMode", "NONE"), "passive scattering"),
        (lambda d, b: setattr(b, "ModulatedScanModeType", "LINEAR"), "line scanning"),
        (modulator, "range modulators"),
        (lambda d, b: setattr(b, "NumberOfBlocks", 1), "blocks or apertures"),
        (lambda d, b: point(b, "GantryAngle", 5.0, 1), "technique arc"),
        (lambda d, b: point(b, "TableTopPitchAngle", 2.0), "tilts are not calculated"),
        (lambda d, b: setattr(b, "RadiationType", "NEUTRON"), "RadiationType is NEUTRON"),
        (lambda d, b: [delattr(p, "ScanSpotTuneID") for p in b.IonControlPointSequence],
         r"field 1 \(Field 1\), layer 1, control point 0, 160 MeV.*ScanSpotTuneID"),
        (lambda d, b: point(b, "ScanSpotPositionMap", [0.0, 0.0]), "layer 1.*ScanSpotPositionMap holds 2 numbers"),
        (lambda d, b: setattr(b, "FinalCumulativeMetersetWeight", "7000"), "field 1.*last control point"),
        (lambda d, b: point(b, "CumulativeMetersetWeight", "6000", 1), "layer 1.*spots weigh 6847.78.*grows by 6000"),
        (lambda d, b: delattr(b, "VirtualSourceAxisDistances"), "VirtualSourceAxisDistances"),
    ],
)  # fmt: skip
def test_what_is_refused_names_field_and_layer(tmp_path, change, message):
    with pytest.raises(FileError, match=message):
        read_ion_plan(changed(tmp_path, change))


def test_plans_that_a_machine_cannot_deliver(machine):
    plan = read_ion_plan(PLAN)
    check_spots(plan, machine)
    with pytest.raises(InputError, match=r"field 1 \(Field 1\), layer 1 \(160 MeV/u\): its energy lies outside"):
        check_spots(plan, at_energies(machine, [150.0]))
    heavy = replace(machine, layers=tuple(replace(layer, min_mu=181.0) for layer in machine.layers))
    with pytest.raises(InputError, match=r"layer 1 \(160 MeV/u\): \d+ of 323 spots lie outside.*181 to inf MU"):
        check_spots(plan, heavy)
