"""What of a photon linac a water tank can tell: parameters with what is usual of them, and the machine they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from radplan.commissioning.tank import TankData
from radplan.errors import UnknownNameError
from radplan.machines import Collimation
from radplan.machines.generate.photon import MODELS, PhotonModel

_NODE_STEP = 10.0
"""Distance of radii at which off-axis fluence is fitted, up to 5 cm; three times as far beyond [mm]."""

_BORDER = 8.0
"""How far from a field's edge fluence cannot be told from penumbra [mm]."""


_DETERMINED = 0.5
"""What remains of the usual spread of a parameter that curves determine, at most."""


@dataclass(frozen=True)
class Parameter:
    """A number that is fitted, and what is usual of it before anything was measured.

    Parameters
    ----------
    name, unit : str
        What it is.
    usual, spread : float
        Value, and standard deviation among linacs: where curves say nothing, the usual value stays.
    lower, upper : float
        Bounds.
    """

    name: str
    unit: str
    usual: float
    spread: float
    lower: float
    upper: float


@dataclass(frozen=True)
class FittedParameter:
    """A parameter after a fit.

    Parameters
    ----------
    name, unit : str
        What it is.
    value, uncertainty : float
        Fitted, with one standard deviation.
    usual, spread : float
        What was usual before.
    """

    name: str
    unit: str
    value: float
    uncertainty: float
    usual: float
    spread: float

    @property
    def determined(self) -> bool:
        """Whether the measurements say more of it than what is usual."""
        return self.uncertainty < _DETERMINED * self.spread


def start_model(name: str | None, energy: float) -> PhotonModel:
    """Return the generic model that a fit begins with, of a name or of the nearest energy [MV], with simulated scatter.

    Raises
    ------
    UnknownNameError
        When no generic model has that name.

    >>> start_model(None, 6.0).name
    'generic_photon_6mv'
    """
    models = {model.name: model for model in MODELS}
    if name is not None and name not in models:
        raise UnknownNameError("photon model", name, models)
    nearest = min(MODELS, key=lambda model: abs(model.energy - energy))
    return replace(nearest if name is None else models[name], kernel="simulated")


def parameters_of(start: PhotonModel, data: TankData) -> tuple[Parameter, ...]:
    """Return the parameters of a fit to what was measured, beginning with a generic model."""
    head, electrons = start.head, start.contamination
    listed = [
        Parameter("quality", "", start.quality, 0.02, 0.6, 0.8),
        Parameter("source_fwhm", "mm", start.source_fwhm, 1.0, 0.5, 7.0),
        Parameter("scatter", "", head.scatter, 0.03, 0.0, 0.25),
        *(
            Parameter(f"scatter_sigma_{axis}", "mm", sigma, 6.0, 8.0, 60.0)
            for axis, sigma in zip("xy", head.sigmas, strict=True)
        ),
        Parameter("contamination", "", electrons.amount, 0.05, 0.0, 0.5),
        Parameter("contamination_depth", "mm", electrons.depth, 3.0, 2.0, 25.0),
        Parameter("jaw_transmission", "", 0.004, 0.003, 0.0, 0.03),
        Parameter("jaw_opening", "mm", 0.0, 0.5, -3.0, 3.0),
    ]
    if data.leaf_axis is not None:
        listed += [
            Parameter("leaf_end_fwhm", "mm", 1.5, 1.5, 0.0, 8.0),
            Parameter("leaf_transmission", "", 0.012, 0.006, 0.0, 0.06),
            Parameter("leaf_offset", "mm", 0.4, 0.4, 0.0, 2.5),
        ]
    usual = start.profile(np.asarray(node_radii(data)))
    listed += [
        Parameter(node_name(radius), "", float(value), 0.03, 0.05, 1.4)
        for radius, value in zip(node_radii(data), usual, strict=True)
    ]
    return tuple(listed)


def node_radii(data: TankData) -> tuple[float, ...]:
    """Return the radii at which the profiles tell the off-axis fluence [mm].

    >>> node_radii(TankData(()))
    ()
    """
    halves = [
        0.5 * scan.field[1 if scan.curve == "inplane" else 0] for scan in data.scans if scan.curve != "depth dose"
    ]
    if not halves:
        return ()
    last = max(halves) - _BORDER
    steps = np.concatenate([np.arange(1, 6) * _NODE_STEP, 5 * _NODE_STEP + np.arange(1, 7) * 3 * _NODE_STEP])
    return tuple(float(radius) for radius in steps[steps <= last])


def node_name(radius: float) -> str:
    """Return the name of the off-axis fluence at a radius [mm]."""
    return f"off_axis_{radius:.0f}mm"


def model_of(values: Mapping[str, float], start: PhotonModel, name: str, data: TankData) -> PhotonModel:
    """Return the model that parameters make; what is not among them stays as it is in `start`.

    Beyond the last radius that profiles tell, the off-axis fluence goes on in the shape of `start`.
    """
    nodes = [(radius, values[node_name(radius)]) for radius in node_radii(data)]
    if nodes:
        last, level = nodes[-1]
        beyond = np.arange(last + 10.0, 301.0, 10.0)
        usual = start.profile(beyond) * level / start.profile(np.asarray([last]))
        nodes += zip(beyond.tolist(), usual.tolist(), strict=True)
    return replace(
        start,
        name=name,
        energy=data.energy,
        quality=values["quality"],
        source_fwhm=values["source_fwhm"],
        contamination=replace(
            start.contamination,
            amount=values["contamination"],
            depth=values["contamination_depth"],
            source="fitted to a water tank",
        ),
        head=replace(
            start.head,
            scatter=values["scatter"],
            scatter_sigma=(values["scatter_sigma_x"], values["scatter_sigma_y"]),
        ),
        off_axis=tuple(nodes) or start.off_axis,
        collimation=Collimation(
            leaf_end_fwhm=values.get("leaf_end_fwhm", 0.0),
            jaw_transmission=values["jaw_transmission"],
            leaf_transmission=values.get("leaf_transmission"),
            leaf_offset=values.get("leaf_offset"),
        ),
    )
