"""A beam and its bixels or spots, and the ordered set of beams of a plan.

A bixel is a square of the fluence in the isocentre plane; a spot of a particle beam has an energy as well. Its weight
is one decision variable. The variables of a plan run over the beams in order and, within a beam, over its bixels in the
order given.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radplan.beams.range_shifter import RangeShifter
from radplan.errors import InputError
from radplan.geometry.frames import beam_rotation, source_position
from radplan.tables import html_table

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Beam:
    """One direction of irradiation, IEC 61217, with its bixels.

    Parameters
    ----------
    gantry, couch, collimator : float
        IEC 61217 angles [degree]; see `radplan.geometry.frames`.
    isocenter : array of shape (3,)
        World position (LPS) of the isocentre [mm].
    sad : float
        Source-axis distance [mm], > 0.
    bixel_width : float
        Side of the square bixels in the isocentre plane [mm], > 0.
    bixels : array of shape (n, 2)
        Centres of the bixels in the isocentre plane: x and y of the beam-limiting device [mm]. No two are the same.
    energies : array of shape (n,), optional
        Of particle beams: the energy of each spot [MeV/u]; spots of different energies may share a place.
    range_shifter : RangeShifter, optional
        Of particle beams: a slab that all spots pass before the patient.
    patient_position : str
        How the patient lies, DICOM: ``"HFS"``, ``"HFP"``, ``"FFS"``, ...; see `radplan.geometry.frames`.

    Raises
    ------
    InputError
        When a shape is wrong, a number is not finite, a length is not positive or a bixel is given twice.

    >>> beam = Beam(90.0, 0.0, 0.0, (0.0, 0.0, 0.0), sad=1000.0, bixel_width=5.0, bixels=[[0.0, 0.0], [5.0, 0.0]])
    >>> beam.count, beam.source.tolist()
    (2, [1000.0, 0.0, 0.0])
    """

    gantry: float
    couch: float
    collimator: float
    isocenter: Floats
    sad: float
    bixel_width: float
    bixels: Floats
    energies: Floats | None = None
    range_shifter: RangeShifter | None = None
    patient_position: str = "HFS"

    def __post_init__(self) -> None:
        for name in ("gantry", "couch", "collimator"):
            object.__setattr__(self, name, _angle(name, self.__dict__[name]))
        for name in ("sad", "bixel_width"):
            object.__setattr__(self, name, _length(name, self.__dict__[name]))
        isocenter = _constant("isocenter", self.isocenter)
        if isocenter.shape != (3,):
            raise InputError(f"isocenter must be one world position (x, y, z) in mm, got shape {isocenter.shape}")
        bixels = _constant("bixels", self.bixels)
        if bixels.size == 0:
            raise InputError(f"the beam at gantry {self.gantry:g}, couch {self.couch:g} has no bixels")
        if bixels.ndim != 2 or bixels.shape[1] != 2:
            raise InputError(
                f"bixels must have shape (n, 2): x and y in the isocentre plane in mm; got shape {bixels.shape}. "
                "Of matRad's rayPos_bev take the columns 0 and 2"
            )
        places = bixels if self.energies is None else self._with_energies(bixels)
        distinct = np.unique(places, axis=0).shape[0]
        if distinct != bixels.shape[0]:
            raise InputError(
                f"the beam at gantry {self.gantry:g} lists {bixels.shape[0] - distinct} bixels more than once: "
                "give every position once" + ("" if self.energies is None else " for each energy")
            )
        object.__setattr__(self, "isocenter", isocenter)
        object.__setattr__(self, "bixels", bixels)

    def _with_energies(self, bixels: Floats) -> Floats:
        """Check and keep the energies; return (x, y, energy) of every spot."""
        energies = _constant("energies", np.asarray(self.energies))
        if energies.shape != bixels.shape[:1] or not np.all(energies > 0.0):
            raise InputError(
                f"energies must be one number > 0 MeV/u for each of {bixels.shape[0]} spots, got shape {energies.shape}"
            )
        object.__setattr__(self, "energies", energies)
        return np.column_stack([bixels, energies])

    @property
    def count(self) -> int:
        """Number of bixels or spots."""
        return int(self.bixels.shape[0])

    @property
    def rotation(self) -> Floats:
        """Columns: the beam-limiting-device axes x, y, z in the world, shape (3, 3)."""
        return beam_rotation(self.gantry, self.couch, self.collimator, self.patient_position)

    @property
    def source(self) -> Floats:
        """World position of the source, shape (3,) [mm]."""
        return source_position(self.isocenter, self.rotation, self.sad)

    @property
    def targets(self) -> Floats:
        """World positions of the bixel centres in the isocentre plane, shape (n, 3) [mm]."""
        return self.isocenter + self.bixels @ self.rotation[:, :2].T


@dataclass(frozen=True, eq=False)
class Beams:
    """The beams of a plan, in order: ``len(beams)``, ``beams[0]`` and iteration give its `Beam` objects.

    Parameters
    ----------
    beams : sequence of Beam
        At least one.
    radiation : str
        ``"photons"``, ``"protons"``, ``"helium"``, ``"carbon"`` or ``"VHEE"``.
    machine : str
        Name of the machine they were placed for.

    Raises
    ------
    InputError
        When there is no beam.

    >>> rays = [[[0.0, 0.0]], [[0.0, 0.0], [5.0, 0.0]]]
    >>> beams = Beams.from_rays(rays, gantry=[0.0, 180.0], isocenter=(0.0, 0.0, 0.0), sad=1000.0, bixel_width=5.0,
    ...                         machine="generic_photon_6mv")
    >>> beams.count, beams.beam_index.tolist()
    (3, [0, 1, 1])
    """

    beams: tuple[Beam, ...]
    radiation: str
    machine: str

    def __repr__(self) -> str:
        angles = ", ".join(f"{beam.gantry:g}" for beam in self.beams[:12]) + (", ..." if len(self.beams) > 12 else "")
        kind = "bixels" if self.beams[0].energies is None else "spots"
        return f"Beams({len(self.beams)} of {self.radiation} at gantry {angles}, {self.count} {kind}, {self.machine})"

    def _repr_html_(self) -> str:
        rows = [[f"{b.gantry:g}", f"{b.couch:g}", f"{b.collimator:g}", str(b.count)] for b in self.beams]
        kind = "bixels" if self.beams[0].energies is None else "spots"
        return html_table(["gantry", "couch", "collimator", kind], rows, repr(self))

    def __post_init__(self) -> None:
        object.__setattr__(self, "beams", tuple(self.beams))
        if not self.beams:
            raise InputError("a plan needs at least one beam, got none")

    @classmethod
    def from_rays(
        cls,
        rays: Sequence[npt.ArrayLike],
        *,
        gantry: float | Iterable[float],
        isocenter: npt.ArrayLike,
        sad: float,
        bixel_width: float,
        machine: str,
        couch: float | Iterable[float] = 0.0,
        collimator: float | Iterable[float] = 0.0,
        radiation: str = "photons",
        energies: Sequence[npt.ArrayLike] | None = None,
        range_shifter: RangeShifter | None = None,
        patient_position: str = "HFS",
    ) -> Beams:
        """Return beams with the bixels of an imported ray list, in the order given.

        Parameters
        ----------
        rays : sequence of arrays of shape (n, 2)
            Per beam, the bixel centres x and y in the isocentre plane [mm]. matRad: columns 0 and 2 of ``rayPos_bev``.
        gantry, couch, collimator : float or iterable of float
            IEC 61217 angles [degree], one per beam or one for all.
        isocenter : array of shape (3,) or (beams, 3)
            World position of the isocentre [mm].
        sad : float
            Source-axis distance [mm].
        bixel_width : float
            Side of the square bixels in the isocentre plane [mm].
        machine : str
            Name of the machine.
        radiation : str
            ``"photons"``, ``"protons"``, ``"helium"``, ``"carbon"`` or ``"VHEE"``.
        energies : sequence of arrays of shape (n,), optional
            Per beam, the energy of each spot [MeV/u]: `rays` then lists one place for each spot.
        range_shifter : RangeShifter, optional
            In front of the patient in all particle beams.
        patient_position : str
            How the patient lies: ``"HFS"``, ``"HFP"``, ``"FFS"``, ...

        Raises
        ------
        InputError
            When the numbers of beams differ or a beam cannot be made.

        >>> Beams.from_rays([[[0.0, 0.0]]], gantry=0.0, isocenter=(0.0, 0.0, 0.0), sad=1000.0, bixel_width=5.0,
        ...                 machine="m")[0].bixels.tolist()
        [[0.0, 0.0]]
        """
        angles = beam_angles(gantry, couch, collimator, beams=len(rays))
        centres = isocentres(isocenter, len(rays))
        layers = [None] * len(rays) if energies is None else energies
        if len(layers) != len(rays):
            raise InputError(f"got energies for {len(layers)} beams, but rays for {len(rays)}")
        beams = tuple(
            Beam(
                *three,
                isocenter=centre,
                sad=sad,
                bixel_width=bixel_width,
                bixels=np.asarray(bixels, dtype=np.float64),
                energies=None if layer is None else np.asarray(layer, dtype=np.float64),
                range_shifter=range_shifter,
                patient_position=patient_position,
            )
            for three, centre, bixels, layer in zip(angles, centres, rays, layers, strict=True)
        )
        return cls(beams, radiation, machine)

    @property
    def count(self) -> int:
        """Number of bixels of all beams: the number of decision variables."""
        return sum(beam.count for beam in self.beams)

    @property
    def beam_index(self) -> Ints:
        """Which beam each bixel belongs to, shape (count,)."""
        return np.repeat(np.arange(len(self.beams)), [beam.count for beam in self.beams]).astype(np.int64)

    @property
    def ray_index(self) -> Ints:
        """Number of the ray of each bixel or spot, shape (count,), ascending; a ray's energies follow one another."""
        beams = self.beam_index[:, None].astype(np.float64)
        places = np.concatenate([beams, np.concatenate([beam.bixels for beam in self.beams])], axis=1)
        return np.cumsum(np.any(np.diff(places, axis=0, prepend=places[:1]) != 0.0, axis=1)).astype(np.int64)

    def __len__(self) -> int:
        return len(self.beams)

    def __iter__(self) -> Iterator[Beam]:
        return iter(self.beams)

    def __getitem__(self, index: int) -> Beam:
        return self.beams[index]


def beam_angles(
    gantry: float | Iterable[float],
    couch: float | Iterable[float] = 0.0,
    collimator: float | Iterable[float] = 0.0,
    beams: int | None = None,
) -> list[tuple[float, float, float]]:
    """Return (gantry, couch, collimator) of every beam [degree]; a single angle serves all beams.

    Parameters
    ----------
    gantry, couch, collimator : float or iterable of float
        IEC 61217 angles [degree].
    beams : int, optional
        Number of beams; by default as many as the longest of the three.

    Raises
    ------
    InputError
        When the lengths do not agree or there is no angle.

    >>> beam_angles(range(0, 360, 180), couch=10)
    [(0.0, 10.0, 0.0), (180.0, 10.0, 0.0)]
    """
    given = {"gantry": _several(gantry), "couch": _several(couch), "collimator": _several(collimator)}
    lengths = {name: len(values) for name, values in given.items() if isinstance(values, list)}
    count = beams if beams is not None else max(lengths.values(), default=1)
    wrong = [f"{length} {name} angles" for name, length in lengths.items() if length != count or length == 0]
    if wrong:
        raise InputError(f"got {', '.join(wrong)} for {count} beams: give one number, or one per beam")
    columns = [
        [_angle(name, value) for value in (values if isinstance(values, list) else [values] * count)]
        for name, values in given.items()
    ]
    return list(zip(*columns, strict=True))


def isocentres(isocenter: npt.ArrayLike, beams: int) -> Floats:
    """Return one isocentre per beam, ``(beams, 3)`` [mm], from one for all or one each.

    >>> isocentres([1.0, 2.0, 3.0], beams=2).tolist()
    [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]
    """
    centres = np.asarray(isocenter, dtype=np.float64)
    if centres.shape not in ((3,), (beams, 3)):
        raise InputError(
            f"isocenter must be one world position (x, y, z) in mm or one for each of the {beams} beams, "
            f"got shape {centres.shape}"
        )
    return np.array(np.broadcast_to(centres, (beams, 3)))


def _several(angles: object) -> object:
    """Return a list for angles that come in an iterable, and a single one as it is."""
    if (
        isinstance(angles, str)
        or not isinstance(angles, Iterable)
        or (isinstance(angles, np.ndarray) and not angles.ndim)
    ):
        return angles
    return list(angles)


def _angle(name: str, value: object) -> float:
    try:
        angle = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InputError(f"{name} must be an angle in degrees, got {value!r}") from None
    if not math.isfinite(angle):
        raise InputError(f"{name} must be a finite angle in degrees, got {angle}")
    return angle


def _length(name: str, value: object) -> float:
    try:
        length = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InputError(f"{name} must be a length in mm, got {value!r}") from None
    if not (length > 0.0 and math.isfinite(length)):
        raise InputError(f"{name} must be > 0 mm, got {length}")
    return length


def _constant(name: str, values: npt.ArrayLike) -> Floats:
    array = np.array(values, dtype=np.float64)
    if not np.all(np.isfinite(array)):
        raise InputError(f"{name} holds a position that is not finite")
    array.setflags(write=False)
    return array
