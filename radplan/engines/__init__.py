"""Dose engines: from a patient, a machine and beams to a forward model."""

from __future__ import annotations

from radplan.engines.aperture.engine import PhotonAperture
from radplan.engines.aperture.model import ApertureModel, ApertureOptions, aperture_model
from radplan.engines.base import ENGINES, Engine, dose_influence, forward_model
from radplan.engines.monte_carlo.engine import PhotonMonteCarlo, ProtonMonteCarlo
from radplan.engines.particle.pencil_beam import ParticlePencilBeam
from radplan.engines.photon.pencil_beam import PhotonPencilBeam

__all__ = [
    "ENGINES",
    "ApertureModel",
    "ApertureOptions",
    "Engine",
    "ParticlePencilBeam",
    "PhotonAperture",
    "PhotonMonteCarlo",
    "PhotonPencilBeam",
    "ProtonMonteCarlo",
    "aperture_model",
    "dose_influence",
    "forward_model",
]
