"""The specification of a training: data, network, losses, optimiser, budget and seed, read from YAML."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from radplan.errors import FileError, UnknownNameError

_STRICT = ConfigDict(extra="forbid", frozen=True)


class _Section(BaseModel):
    model_config = _STRICT


class DataSection(_Section):
    """Which patients: glob patterns below the data's folder.

    `train` trains; on `choose` the best state is chosen and nothing else is tuned; `test` is scored once, at the end.
    """

    train: tuple[str, ...] = Field(min_length=1)
    choose: tuple[str, ...] = Field(min_length=1)
    test: tuple[str, ...] = ()


class NetworkSection(_Section):
    """Sizes of `radplan.ai.nets.resunet.DoseNet`."""

    widths: tuple[int, ...] = Field(min_length=1)
    pool: int = Field(default=4, ge=1)
    head: tuple[int, ...] = (64, 64)
    norm: Literal["instance", "batch"] = "instance"


class TreesSection(_Section):
    """Boosted trees (`radplan.ai.baseline.BoostedTrees`) whose dose is averaged with the network's.

    Parameters
    ----------
    share : float
        Weight of the trees' dose in the mean.
    iterations, leaves : int
        Number of trees, and largest number of leaves of each.
    voxels : int
        Reference voxels drawn of each training patient.
    """

    share: float = Field(default=0.5, gt=0, lt=1)
    iterations: int = Field(default=300, ge=1)
    leaves: int = Field(default=63, ge=2)
    voxels: int = Field(default=3000, ge=1)


class OptimiserSection(_Section):
    """AdamW with a linear warm-up and a cosine that ends with the budget; exponential mean of the weights."""

    rate: float = Field(default=4e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    clip: float = Field(default=1.0, gt=0)
    warmup: int = Field(default=50, ge=1)
    mean: float = Field(default=0.998, ge=0, lt=1)


class BudgetSection(_Section):
    """What ends the training: steps, processor seconds of all threads, or seconds; of several what is spent first."""

    steps: int | None = Field(default=None, ge=1)
    processor_seconds: float | None = Field(default=None, gt=0)
    seconds: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _limited(self) -> BudgetSection:
        if self.steps is None and self.processor_seconds is None and self.seconds is None:
            raise ValueError("give at least one of steps, processor_seconds and seconds")
        return self


class TrainingSpec(BaseModel):
    """What every training has.

    Parameters
    ----------
    name : str
        Of the model.
    interval : float
        Share of the budget between two looks at the patients in `choose`.
    processes : int
        Devices, or processes on the CPU, that each take one patient a step and share their gradients.
    """

    model_config = _STRICT

    name: str
    optimiser: OptimiserSection = OptimiserSection()
    budget: BudgetSection
    interval: float = Field(default=0.1, gt=0, le=1)
    seed: int = Field(default=0, ge=0)
    device: str = "cpu"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    threads: int = Field(default=1, ge=1)
    processes: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _one_device(self) -> TrainingSpec:
        if ":" in self.device and self.processes > 1:
            raise ValueError(f"{self.device} is one device for {self.processes} processes: write cuda, or processes: 1")
        return self

    @property
    def digest(self) -> str:
        """The specification's sha256, by which a half-done training is told from another."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()


class TrainSpec(TrainingSpec):
    """All that determines a training of a dose network.

    Parameters
    ----------
    voxels : int, optional
        Reference voxels that the loss is taken over at each step, drawn anew; None takes all.
    dvh_weight : float
        Weight of the DVH loss beside the mean absolute difference.
    start : str, optional
        Model whose weights the training begins with, by name or folder; None begins with fresh ones.
    trees : TreesSection, optional
        Trees fitted to the same patients, whose dose is averaged with the network's; None proposes the network's alone.
    """

    kind: Literal["dose"] = "dose"
    data: DataSection
    network: NetworkSection
    trees: TreesSection | None = None
    start: str | None = None
    voxels: int | None = Field(default=None, ge=1)
    dvh_weight: float = Field(default=0.1, ge=0)


class CohortSection(_Section):
    """Which patients of a cohort: their numbers; `choose` is for all choices, `test` is looked at once."""

    train: tuple[int, int]
    choose: tuple[int, int]
    test: tuple[int, int]

    @model_validator(mode="after")
    def _apart(self) -> CohortSection:
        parts = sorted([self.train, self.choose, self.test])
        if any(first < 0 or last < first for first, last in parts):
            raise ValueError("numbers of patients read [first, last], 0 <= first <= last")
        if any(before[1] >= after[0] for before, after in itertools.pairwise(parts)):
            raise ValueError("a patient must be in one of train, choose and test only")
        return self


class DvhNetworkSection(_Section):
    """Sizes of `radplan.ai.nets.dvh_unet.DvhUNet`."""

    widths: tuple[int, ...] = Field(min_length=2)
    pool: int = Field(default=2, ge=1)
    head: int = Field(default=64, ge=1)
    conditioning: Literal["concat", "film", "both", "none"] = "both"


class DvhSpec(TrainingSpec):
    """All that determines a training of a network that is steered by DVHs.

    Parameters
    ----------
    target : str
        Structure whose mean dose is the unit of dose.
    structures : sequence of str
        Structures whose DVHs steer, the target and the body among them.
    organs : sequence of str
        Structures whose parts are channels.
    protocol : str
        By which other names of structures are understood.
    wishes : int
        DVHs of each step, for one patient.
    own : float
        Share of them that are of the patient's own plans; others are of other patients' plans, and ask for the
        patient's plan that is nearest to them.
    unsteered : float
        Share of them that say nothing, so that the network knows what is usual too.
    rounds : int
        How often an answer's organs are asked again for what it lacks, when the network is applied.
    voxels : int
        Voxels of the body that the loss is taken over at each step, beside those of the other structures.
    dvh_weight : float
        Weight of the DVH loss beside the mean squared difference.
    order_weight : float
        Weight of the loss of answers that do not come in the order of what was asked for.
    start : str, optional
        Model whose weights the training begins with, by name or folder; None begins with fresh ones.
    """

    kind: Literal["dvh"]
    data: CohortSection
    network: DvhNetworkSection
    start: str | None = None
    target: str = "PTV"
    structures: tuple[str, ...] = ("PTV", "Bladder", "Rectum", "Femur_Head_L", "Femur_Head_R", "External")
    organs: tuple[str, ...] = ("Bladder", "Rectum", "Femur_Head_L", "Femur_Head_R")
    protocol: str = "prostate"
    wishes: int = Field(default=6, ge=1)
    own: float = Field(default=0.4, ge=0, le=1)
    unsteered: float = Field(default=0.15, ge=0, le=1)
    rounds: int = Field(default=2, ge=0)
    voxels: int = Field(default=4000, ge=1)
    dvh_weight: float = Field(default=0.1, ge=0)
    order_weight: float = Field(default=0.0, ge=0)


class ArcSection(_Section):
    """Control points and pixels of a planner of arcs, and the grid on which it calculates dose.

    Parameters
    ----------
    control_points : int
        At equal angles, all the way round.
    pixels : int
        Along each side of a map; odd, so that one lies on the axis.
    pitch, grid, cutoff : float
        Side of a pixel in the isocentre plane, spacing of the dose grid, lateral reach of a pixel's dose [mm].
    evenness : float
        Weight of the target's goals over the protocol's: openings lose evenness before they lose organs.
    """

    control_points: int = Field(default=24, ge=4)
    pixels: int = Field(default=15, ge=3)
    pitch: float = Field(default=10.0, gt=0)
    grid: float = Field(default=8.0, gt=0)
    cutoff: float = Field(default=40.0, gt=0)
    evenness: float = Field(default=5.0, gt=0)

    @model_validator(mode="after")
    def _odd(self) -> ArcSection:
        if self.pixels % 2 == 0:
            raise ValueError(f"pixels must be odd, got {self.pixels}")
        return self


class AirtNetworkSection(_Section):
    """Sizes of `radplan.ai.airt_net.AirtNet`: the dose proposer's, and those of both fluence networks.

    `conformal` gives the proposer the dose of open fields, `correction` and `shaping` switch the correction and the
    discriminator on. The correction sees the error of the
    prescription and of organs asked to get less, and with ``error: goals`` the slope of the protocol's goals too. It is
    applied `rounds` times, each time to what is wrong with the last one's dose.
    """

    widths: tuple[int, ...] = Field(default=(8, 16, 32), min_length=1)
    pool: int = Field(default=1, ge=1)
    head: tuple[int, ...] = (32,)
    fluence: tuple[int, ...] = Field(default=(16, 32), min_length=1)
    conformal: bool = True
    correction: bool = True
    error: Literal["prescription", "goals"] = "prescription"
    rounds: int = Field(default=1, ge=1)
    shaping: bool = True


class ArcPatients(BaseModel):
    """Generated patients, drawn by number and planned, or read where that was done before.

    Parameters
    ----------
    generator, options, draw
        Of the patients: name and options of an anatomy generator, and the root of its random numbers.
    protocol, machine, organs
        How reference plans are made, and the organs that the networks see.
    """

    model_config = _STRICT

    data: CohortSection
    arc: ArcSection = ArcSection()
    generator: str = "pelvis"
    options: dict[str, float] = Field(default_factory=dict)
    draw: int = Field(default=0, ge=0)
    protocol: str = "prostate"
    machine: str = "generic_photon_6mv"
    organs: tuple[str, ...] = ("Bladder", "Rectum", "Femur_Head_L", "Femur_Head_R")


class AirtSpec(TrainingSpec, ArcPatients):
    """All that determines a training of a planner of arcs by fluence.

    Parameters
    ----------
    warm : float
        Share of the budget in which the proposer and the first fluence are taught apart, on reference doses, and the
        correction not yet.
    shaping : float
        Share of the budget at whose end the correction alone is taught, against the discriminator.
    sparing : float
        Largest share by which organs are asked to get less, drawn at each step for half of the organs.
    """

    kind: Literal["airt"]
    device: Literal["cpu"] = "cpu"
    network: AirtNetworkSection = AirtNetworkSection()
    warm: float = Field(default=0.4, ge=0, le=1)
    shaping: float = Field(default=0.3, ge=0, le=1)
    sparing: float = Field(default=0.3, ge=0, lt=1)


class ApertureNetworkSection(_Section):
    """Sizes of `radplan.ai.nets.aperture_net.ApertureNet`."""

    widths: tuple[int, ...] = Field(default=(16, 32), min_length=1)
    hidden: int = Field(default=32, ge=1)


class ApertureSpec(TrainingSpec, ArcPatients):
    """All that determines a training of a network that gives leaves, jaws and monitor units.

    Parameters
    ----------
    limits : str
        Name of the linac whose leaves, jaws and speeds the network learns through.
    dvh_weight : float
        Weight of the differences of DVHs beside the mean absolute difference of dose.
    """

    kind: Literal["apertures"]
    device: Literal["cpu"] = "cpu"
    network: ApertureNetworkSection = ApertureNetworkSection()
    limits: str = "TrueBeam"
    dvh_weight: float = Field(default=0.5, ge=0)


_KINDS: dict[str, type[TrainingSpec]] = {
    "dose": TrainSpec,
    "dvh": DvhSpec,
    "airt": AirtSpec,
    "apertures": ApertureSpec,
}


SPECS = Path(__file__).parent / "specs"
"""Where the specifications that come with radplan lie."""


def shipped_specs() -> tuple[str, ...]:
    """Return the names of the specifications that come with radplan.

    >>> "openkbp-small" in shipped_specs()
    True
    """
    return tuple(sorted(path.stem for path in SPECS.glob("*.yaml")))


def read_spec(source: str | Path) -> TrainingSpec:
    """Return a specification that comes with radplan, by name, or that of a YAML file.

    Raises
    ------
    UnknownNameError
        When there is neither a specification nor a file of that name.
    FileError
        When the file cannot be read or says something unknown or impossible; names the entry.
    """
    path = SPECS / f"{source}.yaml" if str(source) in shipped_specs() else Path(source)
    if not path.exists() and not path.suffix:
        raise UnknownNameError("training specification", str(source), shipped_specs())
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        kind = data.get("kind", "dose") if isinstance(data, dict) else "dose"
        if kind not in _KINDS:
            raise FileError(path, f"kind: there is no training of the kind {kind!r}; there are {', '.join(_KINDS)}")
        return _KINDS[kind].model_validate(data)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise FileError(path, f"cannot be read as YAML ({error})") from None
    except ValidationError as error:
        first = error.errors()[0]
        entry = ".".join(str(part) for part in first["loc"]) or "the file"
        raise FileError(path, f"{entry}: {first['msg']}, got {first['input']!r}") from None
