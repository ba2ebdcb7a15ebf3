"""Volumes of real patients' structures against the tables that clinical systems made of them.

Thorax: DVH table of the clinical plan in OnkoDICOM's test data (LGPL-2.1), structures drawn in Eclipse. Prostate:
Varian Eclipse's own DVH table in SlicerRT's test data (MIT). Systems differ in how they end a structure and in the
resolution they sample it at, hence 1 % or 1 mL.
"""

from __future__ import annotations

import csv
import re
import time

import pytest

from radplan.geometry.grid import Grid
from radplan.io.dicom import read_case, read_structures

THORAX_NAMES = {
    "common lung": "LUNGS",
    "rt lung": "LUNG_R",
    "lt lung": "LUNG_L",
    "gtv": "GTVp",
    "ctv": "CTVp",
    "PTV_41.4": "PTV4140",
    "cord": "SPINALCORD",
    "heart": "HEART",
    "liver": "LIVER",
}


def agrees(found: float, expected: float) -> bool:
    return abs(found - expected) <= max(1.0, 0.01 * expected)


@pytest.fixture(scope="module")
def thorax(shared):
    return read_case(shared("cases/thorax-imrt")).patient


def test_thorax_volumes_agree_with_the_clinical_table(shared, thorax):
    table = next(shared("cases/thorax-imrt").glob("DVH_*.csv"))
    with table.open(newline="") as file:
        expected = {row["ROI"].strip(): float(row["Volume (mL)"]) for row in csv.DictReader(file)}
    found = {name: thorax.structures[ours].volume / 1000 for name, ours in THORAX_NAMES.items()}
    assert {name: v for name, v in found.items() if not agrees(v, expected[name])} == {}


def test_thorax_roles_and_grid(thorax):
    roles = {name: structure.role for name, structure in thorax.structures.items()}
    assert {name for name, role in roles.items() if role == "target"} == {"GTVp", "CTVp", "PTV4140"}
    # From the files' attributes: 105 slices from z = -189 mm in steps of 4 mm.
    assert thorax.ct.grid.shape == (105, 512, 512)
    assert thorax.ct.grid.spacing == (1.26953125, 1.26953125, 4.0)
    assert thorax.ct.grid.origin == (-324.365234375, -559.365234375, -189.0)


def test_thorax_and_its_masks_are_read_in_ten_seconds(shared, thorax):
    start = time.perf_counter()
    patient = read_case(shared("cases/thorax-imrt")).patient
    grid = patient.ct.grid.with_spacing(3.0)
    for name in patient.structures:
        patient.structure_weights(name, grid)
    assert time.perf_counter() - start < 10.0


def test_prostate_volumes_agree_with_eclipse(shared):
    with shared("cases/eclipse-prostate/EclipseProstate_DvhTable_Eclipse.csv").open() as file:
        header = next(csv.reader(file))
    pairs = zip(header[::2], header[1::2], strict=False)
    expected = {
        name.split("_Dvh")[0]: float(re.search(r"% of ([\d.]+) cc", column).group(1)) for name, column in pairs if name
    }
    # The pixels of the planning CT, which is not at hand: 0.977 x 0.977 x 2.5 mm.
    grid = Grid((93, 512, 512), (0.976562, 0.976562, 2.5), (-250.0, -250.0, -122.5))
    structures = read_structures(shared("cases/eclipse-prostate/RS.dcm"), grid)
    found = {name.replace(" ", ""): structure.volume / 1000 for name, structure in structures.items()}
    found["FemoralHeadRT"] = found.pop("FemoralHeadRT", found.get("FemoralHeadRt", 0.0))
    assert {name: v for name, v in found.items() if not agrees(v, expected[name])} == {}
    assert {"PTV", "Bladder", "Rectum"} <= set(found)
