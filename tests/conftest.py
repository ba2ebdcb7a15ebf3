"""What the tests share: array devices, and the way to reference data outside the repository."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from radplan import arrays, testing

collect_ignore = ["benchmarks"]

# Why: a busy machine is no fault of what is tested.
settings.register_profile("radplan", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("radplan")


def pytest_configure(config: pytest.Config) -> None:
    """Let finalisers that use `random` run while hypothesis draws: it takes them for the strategy."""
    config.addinivalue_line(
        "filterwarnings", "ignore:Do not use the .random. module:hypothesis.errors.HypothesisDeprecationWarning"
    )


DEVICES = [
    pytest.param(name, marks=[pytest.mark.gpu] if name.partition(":")[2].startswith("cuda") or name == "cupy" else [])
    for name in testing.available_devices()
]
"""Those that conformance checks run on, too: all that this machine has, CUDA among them."""


@pytest.fixture(params=DEVICES)
def xp_device(request: pytest.FixtureRequest) -> arrays.Device:
    """Each array device of the numeric suite in turn."""
    return arrays.as_device(request.param)


@pytest.fixture(scope="session")
def shared():
    """Return a function from a relative path to reference data, which skips where the data are absent."""
    root = Path(os.environ.get("RADPLAN_SHARED", Path(__file__).resolve().parents[2] / "shared"))

    def path(relative: str) -> Path:
        found = root / relative
        if not found.exists():
            pytest.skip(f"reference data {relative} not found: set RADPLAN_SHARED to the folder that holds it")
        return found

    return path


@pytest.fixture(scope="session")
def tg119_plan():
    """The C-shape as the README plans it: nine beams, 5 mm, the goals that travel with it; made once per session."""
    import radplan as rp

    patient, machine = rp.load_patient("tg119"), rp.load_machine("generic_photon_6mv")
    beams = rp.place_beams(patient, machine, gantry=range(0, 360, 40), bixel_width=5.0)
    dij = rp.dose_influence(patient, beams, machine, grid=5.0)
    return rp.optimize(dij, patient.goals, patient, fractions=30).scaled("OuterTarget", D95=50.0)


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium of this machine, or the one that RADPLAN_BROWSER names; skips where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = (os.environ.get("RADPLAN_BROWSER", ""), "chromium", "chromium-browser", "google-chrome", "chrome")
    program = next((found for name in names if name and (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium on this machine: install one, or name it in RADPLAN_BROWSER")
    with playwright.sync_playwright() as drive:
        live = drive.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield live
        live.close()


@pytest.fixture
def rng() -> np.random.Generator:
    """A random generator with a fixed seed."""
    return np.random.default_rng(20261121)
