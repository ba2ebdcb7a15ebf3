"""A process forked after its parent has calculated says so, instead of hanging."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

SCRIPT = textwrap.dedent("""
    import multiprocessing, warnings
    import radplan as rp
    from radplan.errors import CalculationError

    warnings.simplefilter("ignore")

    def calculate(_=0):
        patient, machine = rp.load_patient("box"), rp.load_machine("generic_photon_6mv")
        beams = rp.place_beams(patient, machine, gantry=[0], bixel_width=20.0)
        return len(rp.dose_influence(patient, beams, machine, grid=20.0).voxels)

    if BEFORE:
        calculate()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        try:
            print("calculated", pool.map(calculate, [0])[0] > 0)
        except CalculationError as error:
            print("refused", "'spawn'" in str(error))
""")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are forked on Linux")
@pytest.mark.parametrize("before", [True, False])
def test_a_forked_worker_calculates_or_says_why_not(before):
    code = SCRIPT.replace("BEFORE", str(before))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert result.stdout.strip() in (("refused True", "calculated True") if before else ("calculated True",))
