"""The aperture engine: dose of leaves, jaws and monitor units, registered beside those of bixels and spots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Self

from radplan.beams.beam import Beams
from radplan.beams.control_points import DeliveryPlan
from radplan.engines.aperture.model import ApertureModel, aperture_model_of
from radplan.engines.aperture.options import ApertureOptions
from radplan.engines.base import ENGINES, Engine, Machine
from radplan.engines.scope import Scope
from radplan.errors import InputError, UnknownNameError
from radplan.machines.mlc import MLC, library_mlc
from radplan.machines.photon import PhotonMachine
from radplan.patient.patient import Patient


@ENGINES.register
@dataclass(frozen=True)
class PhotonAperture(Engine):
    """Photon dose of what a linac delivers, whose variables are leaves, jaws and monitor units: `ApertureModel`.

    It calculates a `DeliveryPlan`, as `radplan.beams.place_fields`, `place_arc` or an RTPLAN give it, where others
    calculate `Beams`. Its model is not linear, so dose is always on the fly.

    Parameters
    ----------
    mlc : MLC or str, optional
        The collimator, or its name; the known one with the plan's leaf boundaries when left out.
    options : ApertureOptions or mapping
        How dose is calculated, as options or by their names.

    Raises
    ------
    UnknownNameError
        When no collimator or option has that name.

    Notes
    -----
    Source: the pencil beam of `PhotonPencilBeam` on exact fluence; see `radplan.engines.aperture.fluence`.

    >>> PhotonAperture(mlc="Agility", options={"pixel": 2.0}).options.pixel
    2.0
    """

    mlc: MLC | str | None = None
    options: ApertureOptions | Mapping[str, Any] = field(default_factory=ApertureOptions)

    name: ClassVar[str] = "photon_aperture"
    radiation: ClassVar[tuple[str, ...]] = ("photons",)
    delivers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.mlc, str):
            object.__setattr__(self, "mlc", library_mlc(self.mlc))
        if not isinstance(self.mlc, MLC | None):
            raise InputError(f"mlc must be a name, an MLC or None, got {self.mlc!r}")
        if isinstance(self.options, Mapping):
            known = [entry.name for entry in fields(ApertureOptions)]
            for name in self.options:
                if name not in known:
                    raise UnknownNameError(f"option of the engine {self.name!r}", name, known)
            object.__setattr__(self, "options", ApertureOptions(**self.options))
        if not isinstance(self.options, ApertureOptions):
            raise InputError(f"options must be ApertureOptions or a mapping, got {self.options!r}")

    @classmethod
    def examples(cls) -> list[Self]:
        small = {"lateral_cutoff": 25.0, "pixel": 2.0, "margin": 5.0}
        return [cls(options=small), cls(mlc="Agility", options={**small, "free": ("leaves", "mu")})]

    def images_for(self, machine: Machine) -> tuple[str, ...]:
        return ("physical_dose",)

    def influence(self, patient: Patient, beams: Beams | DeliveryPlan, machine: Machine, scope: Scope) -> ApertureModel:
        if not isinstance(machine, PhotonMachine):
            raise InputError(f"the engine {self.name!r} needs a PhotonMachine, got {type(machine).__name__}")
        if not isinstance(beams, DeliveryPlan):
            raise InputError(
                f"the engine {self.name!r} calculates what a linac delivers: give a DeliveryPlan, as place_fields, "
                "place_arc or read_plan make it, in place of beams"
            )
        assert isinstance(self.options, ApertureOptions)
        assert not isinstance(self.mlc, str)
        return aperture_model_of(patient, beams, machine, self.mlc, self.options, scope)

    def to_options(self) -> dict[str, Any]:
        """Return what differs from the defaults, as plain data."""
        assert isinstance(self.options, ApertureOptions)
        usual, options = asdict(ApertureOptions()), asdict(self.options)
        changed = {name: value for name, value in options.items() if value != usual[name]}
        told: dict[str, Any] = {"options": changed} if changed else {}
        return told if self.mlc is None else {"mlc": self.mlc if isinstance(self.mlc, str) else self.mlc.name, **told}
