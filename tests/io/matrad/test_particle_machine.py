"""Reading matRad's particle machines, table by table."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from radplan.errors import FileError, InputError
from radplan.io.load import load_machine
from radplan.io.matrad.machine import read_machine

DEPTH = np.asarray([0.0, 10.0, 12.0, 14.0])


def entry(energy: float, **fields):
    focus = {"dist": [0.0, 20000.0], "sigma": [3.0, 5.0], "SisFWHMAtIso": 9.4}
    dose = np.asarray([4.0, 10.0, 8.0, 0.0])
    stated = {"energy": energy, "depths": DEPTH, "Z": dose, "peakPos": 10.5, "offset": 0.5, "initFocus": focus}
    return {**stated, "sigma": DEPTH / 40, "LET": 1 + DEPTH, **fields}


@pytest.fixture
def write(tmp_path):
    def save(entries, radiation="protons", **meta):
        path = tmp_path / f"{radiation}_Tiny.mat"
        stated = {"radiationMode": radiation, "SAD": 10000.0, "BAMStoIsoDist": 900.0, "machine": "Tiny", **meta}
        savemat(path, {"machine": {"meta": stated, "data": entries}})
        return path

    return save


def test_fields_of_a_small_machine(write):
    path = write([entry(110.0), entry(100.0, minMU=2.0, numParticlesPerMU=5e5)], fitAirOffset=20.0)
    machine = read_machine(path)
    assert (machine.name, machine.radiation, machine.sad) == ("matrad_protons_Tiny", "protons", 10000.0)
    assert (machine.nozzle_distance, machine.fit_air_offset) == (900.0, 20.0)
    assert machine.energies.tolist() == [100.0, 110.0]
    assert machine.peaks.tolist() == [11.0, 11.0]
    first = machine.entry(0)
    assert (first.min_mu, first.particles_per_mu, machine.entry(1).particles_per_mu) == (2.0, 5e5, 1e6)
    assert first.range80 == pytest.approx(12.0)
    assert first.focus.sigma_at(np.asarray(10000.0)) == pytest.approx(4.0)
    assert (machine.gaussians, machine.has_let, machine.has_biology) == (("single",), True, False)
    assert machine.focus_index(5.0, 0) == 0


def test_biology_and_foci(write):
    tables = np.stack([0.1 + DEPTH / 20, 0.5 + DEPTH / 20], axis=1)
    biology = {"alpha": tables, "beta": 0 * tables + 0.05, "alphaX": [0.1, 0.5], "betaX": [0.05, 0.05]}
    foci = {"dist": [[0.0, 2.0], [0.0, 2.0]], "sigma": [[1.0, 1.0], [4.0, 4.0]], "SisFWHMAtIso": [2.4, 9.4]}
    lookup = np.asarray([[1.0, np.inf], [3.0, 3.0]])
    entries = [entry(energy, initFocus=foci, **biology) for energy in (100.0, 110.0)]
    machine = read_machine(write(entries, "carbon", LUT_bxWidthminFWHM=lookup))
    assert machine.tissue_alpha_x.tolist() == [0.1, 0.5]
    assert machine.entry(1).alpha.shape == (2, 4)
    assert machine.entry(1).alpha[1, 2] == pytest.approx(1.1)
    assert machine.focus_index(5.0, 0) == 1
    single = {"dist": [0.0, 2.0], "sigma": [1.0, 1.0], "SisFWHMAtIso": 2.4}
    narrow = read_machine(write([entry(energy, initFocus=single) for energy in (1.0, 2.0)], LUTspotSize=lookup))
    with pytest.raises(InputError, match=r"foci up to 2\.4 mm"):
        narrow.focus_index(5.0, 0)


def test_bad_files_say_what_is_wrong(write):
    for wrong, message in (
        ({"sigma": []}, "needs sigma"),
        ({"LET": -DEPTH}, "let must be finite and >= 0"),
        ({"LET": DEPTH[:2]}, "one value for each of 4 depths"),
        ({"depths": DEPTH[::-1]}, "increasing"),
    ):
        with pytest.raises(FileError, match=message):
            read_machine(write([entry(100.0, **wrong), entry(110.0)]))
    incomplete = entry(100.0)
    del incomplete["initFocus"]
    with pytest.raises(FileError, match="initFocus"):
        read_machine(write([incomplete]))
    with pytest.raises(FileError, match="many Gaussians"):
        read_machine(write([entry(100.0)], dataType="multipleGauss"))


@pytest.mark.parametrize(
    ("name", "count", "gaussians", "biology"),
    [
        ("protons", 114, ("single", "double"), False),
        ("helium", 116, ("double",), False),
        ("carbon", 121, ("single",), True),
    ],
)
def test_matrads_machines_table_by_table(shared, name, count, gaussians, biology):
    path = shared(f"cases/matrad_machines/{name}_Generic.mat")
    machine = load_machine(path)
    assert machine.energies.size == count
    assert (machine.gaussians, machine.has_let, machine.has_biology) == (gaussians, True, biology)
    data = loadmat(path, simplify_cells=True)["machine"]["data"]
    names = {"depths": "depth", "Z": "dose", "LET": "let"} | {n: n for n in ("sigma", "sigma1", "sigma2", "weight")}
    for index in (0, count // 2, count - 1):
        layer, raw = machine.entry(index), data[index]
        for theirs, ours in names.items():
            if theirs in raw:
                np.testing.assert_array_equal(getattr(layer, ours), raw[theirs])
        for table in ("alpha", "beta") if biology else ():
            np.testing.assert_array_equal(getattr(layer, table), raw[table].T)
        np.testing.assert_array_equal(layer.focus.sigma[0], raw["initFocus"]["sigma"])
        assert (layer.peak, layer.offset) == (raw["peakPos"], raw["offset"])
    assert machine.focus_index(5.0, 0) == 0


@pytest.mark.parametrize(("shape", "model"), [("struct of arrays", "double"), ("sigmaXY", "elliptic")])
def test_electrons(write, shape, model):
    """The two ways matRad's electron machines are written: one struct of columns, and elliptic Gaussians."""
    tables = {"sigma1": DEPTH / 40, "sigma2": 1 + DEPTH, "weight": 0 * DEPTH}
    if shape == "sigmaXY":
        tables = {"sigmaXY": np.stack([1 + DEPTH, 2 + DEPTH], axis=1)}
    entries = [{k: v for k, v in entry(e, **tables).items() if k not in ("sigma", "LET")} for e in (100.0, 150.0)]
    if shape == "struct of arrays":
        columns = {}
        for key in entries[0]:
            column = np.empty(2, dtype=object)
            column[:] = [e[key] for e in entries]
            columns[key] = column
        entries = columns
    machine = read_machine(write(entries, "VHEE"))
    assert (machine.gaussians, machine.has_let, machine.energies.tolist()) == ((model,), False, [100.0, 150.0])
    if model == "elliptic":
        assert machine.entry(0).sigma_y[1] == pytest.approx(12.0)
