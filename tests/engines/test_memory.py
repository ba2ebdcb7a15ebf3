"""What a matrix will take is known before it is built, and refused where it does not fit."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from radplan.arrays import memory
from radplan.beams import place_beams
from radplan.engines import ParticlePencilBeam, dose_influence
from radplan.errors import CalculationError
from radplan.machines import library_machine
from radplan.operators import blocks
from radplan.patient.phantoms import phantom

TABLES = 12e6
"""Machine tables, depths and places of voxels, which do not grow with the matrix [bytes]."""


def photons(**options):
    linac = library_machine("generic_photon_6mv")
    patient = phantom("box")
    beams = place_beams(patient, linac, gantry=[0.0, 90.0, 200.0], bixel_width=4.0)
    return dose_influence(patient, beams, linac, grid=5.0, **options)


def protons(**options):
    machine = library_machine("generic_proton")
    patient = phantom("box")
    beams = place_beams(patient, machine, gantry=[0.0, 90.0], bixel_width=6.0, layer_spacing=3.0)
    return dose_influence(patient, beams, machine, grid=5.0, engine=ParticlePencilBeam(), **options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("build", [photons, protons])
def test_the_estimate_is_what_is_used(build, dtype, monkeypatch):
    asked = []
    build(dtype=dtype)  # kernels compiled, tables loaded
    monkeypatch.setattr(blocks.arrays, "require_memory", lambda wanted, *_: asked.append(wanted))
    tracemalloc.start()
    model = build(dtype=dtype)
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    (estimate,) = [wanted for wanted in asked if wanted]
    images = [operators[0].storage for operators in model.operators.values()]
    stored = images[0].firsts.nbytes + sum(image.values.nbytes for image in images)
    assert stored <= estimate
    if dtype == "float32":
        assert estimate == pytest.approx(stored, rel=1e-3)
    assert estimate > 2.0 * TABLES, "the matrix must be most of what is used"
    assert used == pytest.approx(estimate, rel=0.15, abs=0.15 * estimate + TABLES)


@pytest.mark.parametrize("build", [photons, protons])
def test_what_does_not_fit_is_refused_with_the_number_and_the_way_out(build, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda device: 2_000_000)
    with pytest.raises(CalculationError, match=r"takes 0\.\d GB of memory and 0\.0 GB are free.*on the fly.*coarser"):
        build()
    assert build(stored=False).images


def test_a_limit_on_the_address_space_counts():
    script = (
        "import resource; from radplan.arrays import as_device, free_bytes, require_memory; d = as_device('numpy');"
        "resource.setrlimit(resource.RLIMIT_AS, (3_000_000_000,) * 2); assert 0 < free_bytes(d) < 3_000_000_000;"
        "require_memory(4_000_000_000, d, 'it', 'do less')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "CalculationError: it takes 4.0 GB of memory and" in done.stderr


def test_free_memory_of_the_host_is_known_on_linux():
    from radplan.arrays import as_device, free_bytes

    room = free_bytes(as_device("numpy"))
    assert room is None if sys.platform != "linux" else 1e6 < room < 1e14
    assert np.isfinite(room or 0)
