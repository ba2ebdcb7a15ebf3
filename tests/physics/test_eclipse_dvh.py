"""DVHs of a clinical dose in clinical contours against the tables that Varian Eclipse made of them.

SlicerRT's test data (MIT): an Eclipse structure set, Eclipse's dose and DVH tables by Eclipse, CERR and SlicerRT. The
systems agree on everything but the coldest part of the rectum: its lower end lies in a gradient of 3.6 Gy/mm, and its
D98 is 23.2, 21.9 and 20.6 Gy in the three tables, because each ends a structure in another way. With flat ends the bar
is the range of the three.

Eclipse's table says how it ends a structure: volume and dose fall off smoothly below the last contour's dose, as if the
last half slice were tapered, and all its volumes are smaller than those of flat ends by about a third of a slice. With
tapered ends, and slices fine enough to follow the gradient, the volumes agree within 0.15 mL and the D98 within
0.3 Gy (found: 0.27 Gy on slices a quarter as thick, 0.24 Gy on an eighth).
"""

from __future__ import annotations

import csv
import gzip

import numpy as np
import pytest

from radplan.analysis.metrics import metric
from radplan.geometry.grid import Grid
from radplan.io.dicom import read_structures
from radplan.patient.sampling import sample, structure_points

# The pixels of the planning CT, which is not at hand, and the dose grid from the header of the nrrd file.
CT = Grid((93, 512, 512), (0.976562, 0.976562, 2.5), (-250.0, -250.0, -122.5))
DOSE = Grid((92, 86, 136), (2.5, 2.5, 2.5), (-162.8260187, -105.0168634, -122.5))
SYSTEMS = ("Eclipse", "CERR", "SlicerRT")
# The same pixels on slices a quarter as thick, over the pelvis.
FINE = Grid((190, 256, 320), (0.976562, 0.976562, 0.625), (-152.344, -152.344, -125.0))
VOLUMES = {"PTV": 48.6, "Bladder": 116.8, "Rectum": 30.3, "Femoral Head Lt": 49.2, "Femoral Head RT": 50.0}


def table(path, name):
    """Dose [Gy] and volume [%] of one structure in a DVH table."""
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    column = next(i for i, head in enumerate(rows[0]) if head.startswith(name) and "Dose" in head)
    pairs = [(float(row[column]), float(row[column + 1])) for row in rows[1:] if len(row) > column + 1 and row[column]]
    return np.asarray(pairs).T


def read(levels, percent, name):
    if name == "Dmean":
        return float(np.trapezoid(percent, levels) / 100.0)
    return float(np.interp(-float(name[1:]), -percent, levels))


@pytest.fixture(scope="module")
def clinical(shared):
    folder = shared("cases/eclipse-prostate")
    header, body = (folder / "EclipseProstate_Dose.nrrd").read_bytes().split(b"\n\n", 1)
    assert b"sizes: 136 86 92" in header
    dose = np.frombuffer(gzip.decompress(body), "<f4").reshape(DOSE.shape)
    return folder, read_structures(folder / "RS.dcm", CT), dose


@pytest.mark.parametrize("name", ["PTV", "Bladder", "Rectum"])
def test_metrics_agree_with_eclipse(clinical, name):
    folder, structures, dose = clinical
    index, weights = structure_points(structures[name], DOSE)
    values = sample(dose, index)
    tables = {system: table(folder / f"EclipseProstate_DvhTable_{system}.csv", name) for system in SYSTEMS}
    for kind, bar in (("Dmean", 0.1), ("D50", 0.1), ("D2", 0.2), ("D95", 0.2), ("D98", 0.2)):
        found, expected = metric(kind, values, weights), read(*tables["Eclipse"], kind)
        if (name, kind) == ("Rectum", "D98"):
            others = [read(*entry, kind) for entry in tables.values()]
            assert min(others) <= found <= max(others)
        else:
            assert found == pytest.approx(expected, abs=bar), kind


@pytest.fixture(scope="module")
def tapered(clinical):
    return read_structures(clinical[0] / "RS.dcm", FINE, ends="tapered")


@pytest.mark.parametrize("name", VOLUMES)
def test_tapered_ends_come_near_to_eclipse(clinical, tapered, name):
    folder, _, dose = clinical
    index, weights = structure_points(tapered[name], DOSE)
    values, expected = (
        sample(dose, index),
        table(folder / "EclipseProstate_DvhTable_Eclipse.csv", name.replace(" ", "")),
    )
    assert tapered[name].volume / 1000 == pytest.approx(VOLUMES[name], abs=0.15)
    for kind, bar in (
        ("Dmean", 0.1),
        ("D50", 0.1),
        ("D2", 0.2),
        ("D95", 0.2),
        ("D98", 0.3 if name == "Rectum" else 0.2),
    ):
        assert metric(kind, values, weights) == pytest.approx(read(*expected, kind), abs=bar), kind
