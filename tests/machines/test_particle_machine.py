"""The particle machine, its file, and the machines that radplan ships."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest

from radplan.errors import FileError, InputError
from radplan.io.load import load_machine
from radplan.machines import (
    MACHINES,
    EnergyLayer,
    InitialFocus,
    ParticleMachine,
    library_machine,
    read_particle_machine,
    read_photon_machine,
    write_particle_machine,
)
from radplan.machines.generate import particle as generate

NAMES = ("generic_proton", "generic_helium", "generic_carbon")
DEPTH = np.asarray([0.0, 10.0, 12.0, 14.0])


def layer(energy: float = 100.0, **changes) -> EnergyLayer:
    focus = InitialFocus(np.asarray([[0.0, 2.0]]), np.asarray([[3.0, 3.0]]), np.asarray([7.06]))
    dose = np.asarray([4.0, 10.0, 8.0, 0.0])
    stated = {"peak": 10.5, "range80": 12.0, "focus": focus, "sigma": DEPTH / 40, "let": 1 + DEPTH}
    return EnergyLayer(energy, DEPTH, dose, **{**stated, **changes})


def machine(layers=None, **changes) -> ParticleMachine:
    stated = {"name": "tiny", "radiation": "protons", "sad": 10000.0, "nozzle_distance": 500.0}
    return ParticleMachine(layers=layers or (layer(), layer(110.0)), **{**stated, **changes})


@pytest.fixture(scope="module", params=NAMES)
def shipped(request) -> ParticleMachine:
    return library_machine(request.param)


@pytest.mark.parametrize("model", generate.MODELS, ids=lambda model: model.name)
def test_the_shipped_machines_are_what_their_script_makes(model):
    stored = library_machine(model.name)
    np.testing.assert_allclose(stored.energies, model.energies())
    index = 12
    made, kept = generate.make_layer(model, float(stored.energies[index])), stored.entry(index)
    for entry in fields(EnergyLayer):
        if entry.name not in ("focus", "emittance") and getattr(made, entry.name) is not None:
            np.testing.assert_allclose(
                getattr(kept, entry.name), getattr(made, entry.name), rtol=2e-6, atol=1e-9, err_msg=entry.name
            )
    np.testing.assert_allclose(kept.focus.sigma, made.focus.sigma, rtol=1e-6)
    assert stored.provenance == json.loads(json.dumps(generate.provenance(model)))


def test_shipped_files_are_small_and_say_where_they_come_from(shipped):
    assert MACHINES[shipped.name].stat().st_size < 3e6
    assert {"stopping", "nuclear", "lateral", "tuned", "expected_error", "licence"} <= set(shipped.provenance)
    assert "research only" in shipped.provenance["label"]


def test_every_layer_of_a_shipped_machine_is_a_bragg_peak(shipped):
    for a in shipped.layers:
        assert a.peak < a.range80 < a.depth[-1]
        assert a.dose.max() / a.dose[0] > 2.5
        assert a.let[np.argmin(np.abs(a.depth - a.range80))] > 2.5 * a.let[0]
        assert np.all(a.sigma2 >= a.sigma1)
        assert 2.0 < a.focus.sigma_at(np.asarray(shipped.sad)) < 9.0
        assert np.all(np.diff(a.focus.sigma[0]) > 0)
    ranges = np.asarray([a.range80 for a in shipped.layers])
    assert np.all((np.diff(ranges) > 1.8) & (np.diff(ranges) < 3.2))
    assert shipped.has_biology == (shipped.radiation != "protons")
    assert shipped.has_let


def test_tissues_of_the_ion_machines():
    carbon = library_machine("generic_carbon")
    pairs = list(zip(carbon.tissue_alpha_x.tolist(), carbon.tissue_beta_x.tolist(), strict=True))
    assert (0.1, 0.05) in pairs
    assert (0.5, 0.05) in pairs
    entry = carbon.entry(60)
    at_end = np.argmin(np.abs(entry.depth - entry.range80))
    for row, (alpha_x, beta_x) in enumerate(pairs):
        assert np.all(entry.alpha[row] > alpha_x)
        np.testing.assert_allclose(entry.beta[row], beta_x, rtol=1e-6)
        assert entry.alpha[row, at_end] > 1.8 * entry.alpha[row, 0]


def test_load_by_name_needs_no_generator():
    code = (
        "import sys, radplan; m = radplan.load_machine('generic_proton'); "
        "assert m.radiation == 'protons' and not any('generate' in n or n in ('torch', 'numba') for n in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_file_keeps_everything(tmp_path):
    tables = {"alpha": np.stack([0.1 + DEPTH, 0.2 + DEPTH]), "beta": np.full((2, 4), 0.05), "let_all": 2 + DEPTH}
    double = {"sigma1": DEPTH / 40, "sigma2": 1 + DEPTH, "weight": DEPTH / 100}
    layers = tuple(layer(e, **tables, **double, min_mu=0.5, energy_sigma=0.7, offset=1.5) for e in (100.0, 110.0))
    tissues = {"tissue_alpha_x": np.asarray([0.1, 0.2]), "tissue_beta_x": np.asarray([0.05, 0.05])}
    first = machine(layers, fit_air_offset=30.0, provenance={"by": "hand"}, radiation="carbon", **tissues)
    write_particle_machine(first, tmp_path / "tiny.npz")
    second = load_machine(tmp_path / "tiny.npz")
    assert isinstance(second, ParticleMachine)
    for entry in fields(ParticleMachine):
        if entry.name != "layers":
            assert np.all(getattr(first, entry.name) == getattr(second, entry.name)), entry.name
    for ours, theirs in zip(first.layers, second.layers, strict=True):
        for entry in fields(EnergyLayer):
            value = getattr(ours, entry.name)
            if value is None:
                assert getattr(theirs, entry.name) is None
            elif entry.name != "focus":
                np.testing.assert_allclose(getattr(theirs, entry.name), value, rtol=1e-7)
        np.testing.assert_array_equal(theirs.focus.sigma, ours.focus.sigma)


def test_bad_machines_say_what_is_wrong():
    for wrong, message in (
        ({"let": -DEPTH}, "let must be finite and >= 0"),
        ({"alpha": -np.ones((1, 4)), "beta": np.ones((1, 4))}, "alpha must be finite and >= 0"),
        ({"sigma": None}, "needs sigma"),
        ({"sigma1": DEPTH}, "belong together"),
        ({"weight": 2 + DEPTH, "sigma1": DEPTH, "sigma2": DEPTH}, "must lie in"),
        ({"min_mu": 3.0, "max_mu": 2.0}, "min_mu <= max_mu"),
    ):
        with pytest.raises(InputError, match=message):
            layer(**wrong)
    with pytest.raises(InputError, match="'muons' is none of protons"):
        machine(radiation="muons")
    with pytest.raises(InputError, match="increasing energy"):
        machine((layer(110.0), layer(100.0)))
    with pytest.raises(InputError, match="the machine names 1"):
        machine(tissue_alpha_x=np.ones(1), tissue_beta_x=np.ones(1))
    with pytest.raises(InputError, match=r"nearest is 110\.0"):
        machine().energy_index(109.0)


def test_bad_files_say_what_is_wrong(tmp_path):
    path = tmp_path / "tiny.npz"
    write_particle_machine(machine(), path)
    with pytest.raises(FileError, match="radplan photon machine"):
        read_photon_machine(path)
    with pytest.raises(FileError, match="radplan particle machine"):
        read_particle_machine(MACHINES["generic_photon_6mv"])
    with np.load(path) as content:
        arrays = dict(content)
    arrays["dose"] = arrays["dose"] * np.nan
    np.savez(tmp_path / "nan.npz", **arrays)
    with pytest.raises(FileError, match="dose must be finite"):
        read_particle_machine(tmp_path / "nan.npz")
    del arrays["count"]
    np.savez(tmp_path / "less.npz", **arrays)
    with pytest.raises(FileError, match="lacks count"):
        read_particle_machine(tmp_path / "less.npz")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(FileError, match="no archive of arrays that can be read"):
        load_machine(path)
    with pytest.raises(InputError, match="only 1 of 2 energies"):
        write_particle_machine(machine((layer(), replace(layer(110.0), let=None))), path)
