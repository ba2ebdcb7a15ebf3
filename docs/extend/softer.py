"""A custom machine: the generic 6 MV linac with a wider source, written to a file that planning takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import radplan as rp
from radplan.machines import write_photon_machine


def softer(path: Path, source_fwhm: float) -> rp.PhotonMachine:
    """Write the generic linac with a source of another width [mm] and return it as it is read back."""
    generic = rp.load_machine("generic_photon_6mv")
    told = {**generic.provenance, "source": f"source of {source_fwhm:g} mm, chosen for this page"}
    write_photon_machine(replace(generic, name="softer_6mv", source_fwhm=source_fwhm, provenance=told), path)
    return rp.load_machine(path)
