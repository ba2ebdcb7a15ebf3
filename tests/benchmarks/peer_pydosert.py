"""An arc in PyDoseRT, run by an interpreter that has it; prints one JSON line.

Usage: python peer_pydosert.py ARC.npz forward|both REPEATS
The kernel is not truncated (151 pixels of 3 mm, by FFT), ten control points at a time.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import warnings

import numpy as np
import torch
from pydosert import BeamSequence, DoseEngine, MachineConfig

KERNEL, CHUNK = 151, 10


def main(path: str, mode: str, repeats: int) -> dict[str, object]:
    case = np.load(path)
    shape, spacing, count = tuple(int(n) for n in case["density"].shape), float(case["spacing"]), len(case["mu"])
    torch.set_num_threads(2)

    def tensor(name: str) -> torch.Tensor:
        return torch.tensor(case[name], dtype=torch.float32)

    leaves, jaws, mu = tensor("leaves"), tensor("jaws"), tensor("mu")
    if mode == "both":
        for variables in (leaves, jaws, mu):
            variables.requires_grad_(True)
    beams = BeamSequence(
        mus=mu,
        leaf_positions=leaves,
        jaw_positions=jaws,
        field_size=(400, 400),
        iso_center=tuple((n - 1) / 2 * spacing for n in shape),
        sid=1000.0,
        gantry_angles=torch.deg2rad(tensor("gantry")),
        collimator_angles=torch.full((count,), float(np.deg2rad(case["collimator"]))),
    )
    engine = DoseEngine(
        machine_config=MachineConfig(preset="varian_10MV"),
        kernel_size=KERNEL,
        dose_grid_spacing=(spacing,) * 3,
        dose_grid_shape=shape,
        beam_template=beams,
        device="cpu",
        dtype=torch.float32,
        beam_chunk_size=CHUNK,
        conv_backend="fft",
    )
    density, taken, walls = tensor("density"), [], []
    for _ in range(repeats):
        begun, start = time.perf_counter(), time.process_time()
        with torch.set_grad_enabled(mode == "both"):
            dose = engine.compute_dose(beams, density_image=density)
        if mode == "both":
            (dose**2).mean().backward()
        taken.append(time.process_time() - start)
        walls.append(time.perf_counter() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"cpu_s": taken, "wall_s": walls, "peak_mb": peak}


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    print("RESULT " + json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
