"""A custom engine: exponentially attenuated fluence without scatter, for teaching."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csc_array, hstack

from radplan import geometry
from radplan.engines import ENGINES, Engine
from radplan.influence import Dij


@ENGINES.register
@dataclass(frozen=True)
class RayTracer(Engine):
    """Dose ``0.01 (SAD/L)^2 exp(-mu depth)`` Gy per MU to the voxels in the shadow of a bixel; mu in 1/mm of water."""

    attenuation: float = 0.005
    name = "ray_tracer"
    radiation = ("photons",)

    examples = classmethod(lambda cls: [cls()])

    def images_for(self, machine):
        return ("physical_dose",)

    def influence(self, patient, beams, machine, scope):
        grid, voxels, density, blocks = scope.grid, scope.voxels, patient.density(), []
        points = grid.points(voxels)
        for beam in beams:
            depth = scope.error.depths(geometry.radiological_depth(density, patient.ct.grid, beam.source, points))
            seen = geometry.world_to_beam(points, beam.isocenter, beam.rotation)
            x, y, distance = geometry.isocentre_plane(seen, beam.sad)
            dose = 0.01 * (beam.sad / distance) ** 2 * np.exp(-self.attenuation * depth)
            shadow = [np.maximum(abs(x - u), abs(y - v)) <= beam.bixel_width / 2 for u, v in beam.bixels]
            blocks.append(csc_array(np.stack(shadow, axis=1) * dose[:, None]))
        biology = {**patient.voxel_parameters(grid, voxels), "rbe": np.ones(voxels.size)}
        rest = {"beam_index": beams.beam_index, "device": scope.device, "dtype": scope.dtype}
        return Dij.from_matrices({"physical_dose": hstack(blocks)}, grid, voxels, voxel_parameters=biology, **rest)
