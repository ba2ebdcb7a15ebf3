"""Training patients: channels where dose counts, the planned dose where it is known, and a cache of both.

A patient whose dose is known on a halved grid is brought to the full grid by placing structures so that every halved
voxel keeps its parts; predictions on the full grid are then compared as means over the halved voxels.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from radplan.ai.features import Anatomy, Layout, dose_channels
from radplan.ai.halves import doubled, halves
from radplan.errors import FileError, InputError
from radplan.geometry.grid import Grid
from radplan.io.openkbp import BEAM_ANGLES, DOSE_MASK, LEVELS, ORGANS, OpenKBPCase, read_openkbp

Volume = npt.NDArray[np.float32]

OPENKBP_LAYOUT = Layout(
    dict(sorted(LEVELS.items(), key=lambda entry: -entry[1])),
    ORGANS,
    tuple(float(angle) for angle in BEAM_ANGLES),
    {"RightParotid": "LeftParotid", "LeftParotid": "RightParotid"},
)
"""The channels of OpenKBP's patients."""

_VERSION = 1


@dataclass(frozen=True, eq=False)
class Sample:
    """What a network is trained on: one patient.

    Parameters
    ----------
    name : str
        The patient's.
    shape : (int, int, int)
        Of the full grid, (nz, ny, nx).
    voxels : array of shape (n,)
        Flat indices of the voxels where dose counts.
    channels : array of shape (channels, n)
        Features there, float16.
    parents : array of shape (n,)
        Of each voxel the reference voxel it lies in, 0 to m - 1.
    dose : array of shape (m,)
        Planned dose of the reference voxels, in units of the prescription.
    members : array of shape (m,)
        Bits: structure k of the layout's `structures` owns at least half of the reference voxel (its part with dose).
    exact : bool
        Whether the reference voxels are the full grid's own.
    voxel_volume : float
        Of the full grid [mm3].
    """

    name: str
    shape: tuple[int, int, int]
    voxels: npt.NDArray[np.int32]
    channels: npt.NDArray[np.float16]
    parents: npt.NDArray[np.int32]
    dose: npt.NDArray[np.float32]
    members: npt.NDArray[np.uint16]
    exact: bool
    voxel_volume: float


def sample_of(case: OpenKBPCase, layout: Layout) -> Sample:
    """Return a patient and the planned dose as a sample; one on the halved grid is brought to the full grid."""
    coarse = Anatomy.from_patient(case.patient, layout.structures, DOSE_MASK)
    mask = case.patient.structures[DOSE_MASK]
    exact = mask.fraction is None and all(case.patient.structures[n].fraction is None for n in coarse.parts)
    if exact:
        fine, inside = coarse, coarse.inside
        counts = np.flatnonzero(inside)
        parents = np.arange(counts.size, dtype=np.int32)
    else:
        share = np.zeros(mask.grid.size, dtype=np.float32)
        share[mask.voxels] = 1.0 if mask.fraction is None else mask.fraction
        fine = refined(coarse, share.reshape(mask.grid.shape))
        z, y, x = np.nonzero(fine.inside)
        held = np.ravel_multi_index((z // 2, y // 2, x // 2), coarse.grid.shape)
        counts, index = np.unique(held, return_inverse=True)
        parents = index.astype(np.int32)
    dose = (case.dose.reshape(-1)[counts] / layout.prescription).astype(np.float32)
    members = np.zeros(counts.size, dtype=np.uint16)
    population = np.bincount(parents, minlength=counts.size)
    for k, name in enumerate(layout.structures):
        if name in fine.parts:
            own = np.bincount(parents, fine.parts[name][fine.inside], minlength=counts.size)
            members |= np.where(own >= 0.5 * population, np.uint16(1 << k), np.uint16(0))
    voxels = np.flatnonzero(fine.inside).astype(np.int32)
    channels = dose_channels(fine, layout).astype(np.float16)
    volume = fine.grid.voxel_volume
    return Sample(case.patient.name, fine.grid.shape, voxels, channels, parents, dose, members, exact, volume)


def refined(coarse: Anatomy, share: Volume) -> Anatomy:
    """Return an anatomy with twice the voxels along each axis whose means over the old voxels are the given parts.

    Of each voxel's eight children as many belong to a structure as its part in eighths says: those where the
    interpolated part is largest. `share` (nz, ny, nx) is the part of each voxel in which dose counts.
    """
    nz, ny, nx = coarse.grid.shape
    spacing = tuple(s / 2 for s in coarse.grid.spacing)
    origin = tuple(o - s / 2 for o, s in zip(coarse.grid.origin, spacing, strict=True))
    grid = Grid((2 * nz, 2 * ny, 2 * nx), (spacing[0], spacing[1], spacing[2]), (origin[0], origin[1], origin[2]))
    inside = halves(share) > 0
    parts = {name: halves(part) for name, part in coarse.parts.items()}
    hu = _between(np.where(share > 0, coarse.hu, -1024.0), share > 0)
    return Anatomy(coarse.name, grid, np.where(inside, hu, np.float32(-1024.0)), inside, parts)


def _between(volume: npt.NDArray[np.floating], known: npt.NDArray[np.bool_]) -> Volume:
    """Return a volume at twice the resolution, interpolated between known voxels alone."""
    weights = doubled(known.astype(np.float32))
    return np.asarray(doubled(np.where(known, volume, 0.0)) / np.maximum(weights, 1e-3), dtype=np.float32)


def mirrored(sample: Sample, layout: Layout) -> Sample:
    """Return the patient with left and right exchanged, paired organs renamed."""
    z, y, x = np.unravel_index(sample.voxels, sample.shape)
    voxels = np.ravel_multi_index((z, y, sample.shape[2] - 1 - x), sample.shape).astype(np.int32)
    names = layout.structures
    members = np.zeros_like(sample.members)
    for k, name in enumerate(names):
        bit = names.index(layout.mirrored.get(name, name))
        members |= ((sample.members >> np.uint16(k)) & np.uint16(1)) << np.uint16(bit)
    return replace(sample, voxels=voxels, channels=sample.channels[list(layout.swaps)], members=members)


def cached_samples(files: Sequence[Path], layout: Layout, cache: Path | None) -> list[Sample]:
    """Return the samples of patients' files, made once and kept in a folder `cache` as arrays that are mapped in.

    Raises
    ------
    FileError
        When a patient cannot be read or the cache cannot be written.
    """
    if cache is None:
        return [sample_of(read_openkbp(path), layout) for path in files]
    return [_cached(path, layout, cache) for path in files]


def _cached(path: Path, layout: Layout, cache: Path) -> Sample:
    stamp = json.dumps([_VERSION, layout.as_dict()], sort_keys=True).encode()
    key = hashlib.sha256(stamp + path.read_bytes()).hexdigest()[:16]
    folder = cache / f"{path.stem}-{key}"
    arrays = ("voxels", "channels", "parents", "dose", "members")
    if not folder.is_dir():
        sample = sample_of(read_openkbp(path), layout)
        draft = cache / f".{folder.name}-{os.getpid()}"
        try:
            draft.mkdir(parents=True, exist_ok=True)
            for name in arrays:
                np.save(draft / f"{name}.npy", getattr(sample, name), allow_pickle=False)
            facts = {
                "name": sample.name,
                "shape": sample.shape,
                "exact": sample.exact,
                "voxel_volume": sample.voxel_volume,
            }
            (draft / "facts.json").write_text(json.dumps(facts))
            if not folder.is_dir():
                draft.rename(folder)
        except OSError as error:
            raise FileError(cache, f"cannot be written: {error.strerror or error}") from None
    facts = json.loads((folder / "facts.json").read_text())
    held = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in arrays}
    return Sample(
        facts["name"], tuple(facts["shape"]), exact=facts["exact"], voxel_volume=facts["voxel_volume"], **held
    )


def patient_files(root: Path, patterns: Iterable[str]) -> list[Path]:
    """Return the patients' files below `root` that patterns name, each once, by patient number.

    Raises
    ------
    InputError
        When a pattern fits nothing.
    """
    chosen: dict[Path, None] = {}
    for pattern in patterns:
        fitting = sorted(root.glob(pattern), key=lambda path: (len(path.stem), path.stem))
        if not fitting:
            raise InputError(f"nothing below {root} fits {pattern!r}: give the folder that holds the patients")
        chosen.update(dict.fromkeys(fitting))
    return list(chosen)
