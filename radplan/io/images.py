"""Images of other programs through SimpleITK: NIfTI, NRRD (segmentations too), MetaImage, to and from radplan's axes.

An image comes to LPS axes whatever its axes are called, with an exact change of order and sign; axes that lie
obliquely are refused. Extra ``images``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from radplan.errors import FileError, InputError
from radplan.geometry.grid import Grid
from radplan.patient import CT, Patient, Structure, Structures
from radplan.patient.patient import find_external
from radplan.plan import Plan

SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")
_CT_NAMES = ("ct", "image", "img")
_OBLIQUE = 1e-4
"""Largest direction cosine off an axis that still counts as along it [1]."""


def is_image(path: str | Path) -> bool:
    """Say whether a name ends like an image.

    >>> is_image("ct.nii.gz"), is_image("plan.json")
    (True, False)
    """
    return Path(path).name.lower().endswith(SUFFIXES)


def read_image(path: str | Path) -> tuple[npt.NDArray[Any], Grid]:
    """Return the values ``[z, y, x]`` of an image and their grid in LPS.

    Raises
    ------
    FileError
        When the file cannot be read, is not three-dimensional, or lies obliquely.
    """
    image = _read(path)
    count = image.GetNumberOfComponentsPerPixel()
    if count > 1:
        raise FileError(Path(path), f"has {count} values in a voxel; one is expected")
    image = _along_axes(image, path)
    return _array(image), _grid(image, path)


def write_image(path: str | Path, values: npt.ArrayLike, grid: Grid) -> Path:
    """Write values ``[z, y, x]`` on a grid; the name's ending says the format.

    Raises
    ------
    InputError
        When the shape does not fit the grid, or the ending is none of the formats.
    """
    sitk = _library()
    file, array = Path(path), np.asarray(values)
    if array.shape != grid.shape:
        raise InputError(f"the values have shape {array.shape}, the grid {grid.shape}")
    if not is_image(file):
        raise InputError(f"{file.name}: images end in {', '.join(SUFFIXES)}")
    if array.dtype == bool:
        array = array.astype(np.uint8)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array))
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    sitk.WriteImage(image, str(file), True)
    return file


def read_segmentation(path: str | Path) -> tuple[dict[str, npt.NDArray[np.bool_]], Grid]:
    """Return the masks of a segmentation by name: the segments of a ``.seg.nrrd``, or the labels of any other image.

    Labels without a name are called ``label N``. Layers and label values of 3D Slicer are understood.

    Raises
    ------
    FileError
        When the file cannot be read.
    """
    whole = _read(path)
    named = {key: whole.GetMetaData(key) for key in whole.GetMetaDataKeys() if key.startswith("Segment")}
    if whole.GetDimension() == 4:
        images = [_along_axes(_as_lps(whole[:, :, :, k], whole), path) for k in range(whole.GetSize()[3])]
        image, layers = images[0], np.stack([_array(part) for part in images], axis=-1)
    else:
        image = _along_axes(whole, path)
        array = _array(image)
        layers = array if array.ndim == 4 else array[..., None]
    masks: dict[str, npt.NDArray[np.bool_]] = {}
    for number in range(1000):
        if f"Segment{number}_Name" not in named and f"Segment{number}_ID" not in named:
            break
        name = named.get(f"Segment{number}_Name") or named[f"Segment{number}_ID"]
        label = int(named.get(f"Segment{number}_LabelValue", "1"))
        layer = int(named.get(f"Segment{number}_Layer", str(min(number, layers.shape[-1] - 1))))
        masks[name] = np.asarray(layers[..., layer] == label)
    if not masks:
        labels = [int(value) for value in np.unique(layers) if value > 0]
        masks = {f"label {label}": np.asarray((layers == label).any(axis=-1)) for label in labels}
    return masks, _grid(image, path)


def is_image_folder(path: str | Path) -> bool:
    """Say whether a folder holds a CT and masks as images: ``ct.nii.gz`` and one file for each structure."""
    folder = Path(path)
    return folder.is_dir() and _ct_of(folder) is not None


def read_image_folder(path: str | Path) -> Patient:
    """Return the patient of a folder of images: a CT and, beside it or in ``masks``, masks or segmentations.

    Names of files become names of structures; names that begin with PTV, CTV or GTV are targets, ``body`` and
    ``external`` the external contour.

    Raises
    ------
    FileError
        When there is no CT, or an image cannot be read or lies elsewhere than the CT.
    """
    folder = Path(path)
    first = _ct_of(folder)
    if first is None:
        raise FileError(
            folder, f"holds no CT: a file named {' or '.join(_CT_NAMES)} with an image's ending is expected"
        )
    hu, grid = read_image(first)
    ct = CT(grid, np.maximum(hu.astype(np.float32), np.float32(-1024.0)))
    masks: dict[str, npt.NDArray[np.bool_]] = {}
    for file in sorted([*folder.iterdir(), *(folder / "masks").glob("*")]):
        if not is_image(file) or file == first or file.name.lower().startswith("dose"):
            continue
        found, where = read_segmentation(file)
        if where.shape != grid.shape or not np.allclose(where.origin, grid.origin, atol=1e-3):
            raise FileError(file, f"lies on another grid than the CT {first.name}")
        stem = file.name[: len(file.name) - len(next(s for s in SUFFIXES if file.name.lower().endswith(s)))]
        single = len(found) == 1 and next(iter(found)).startswith("label ")
        masks |= {stem: next(iter(found.values()))} if single else found
    return Patient(folder.name, ct, _structures(masks, ct))


def save_images(plan: Plan, folder: str | Path, suffix: str = ".nii.gz") -> tuple[Path, ...]:
    """Write the CT, the dose and every structure of a plan as images: ``ct``, ``dose`` and ``masks/NAME``.

    Parameters
    ----------
    plan : Plan
        What to write; the dose as a course total [Gy], float32, on its own grid.
    folder : path-like
        Where, made if need be.
    suffix : str
        Which format.
    """
    out = Path(folder)
    (out / "masks").mkdir(parents=True, exist_ok=True)
    grid = plan.patient.ct.grid
    paths = [write_image(out / f"ct{suffix}", plan.patient.ct.hu.astype(np.int16), grid)]
    paths.append(write_image(out / f"dose{suffix}", plan[plan.prescribed].astype(np.float32), plan.model.grid))
    for name, structure in plan.patient.structures.items():
        safe = "".join(letter if letter.isalnum() or letter in "-_+ " else "_" for letter in name)
        paths.append(write_image(out / "masks" / f"{safe}{suffix}", structure.mask(), grid))
    return tuple(paths)


def to_xarray(plan: Plan, quantity: str | None = None) -> Any:
    """Return a quantity of a plan as an xarray.DataArray with coordinates z, y, x [mm] and its unit.

    Raises
    ------
    InputError
        When xarray is not installed.
    """
    try:
        import xarray
    except ImportError as error:
        raise InputError("to_xarray needs xarray: pip install 'radplan[images]'") from error
    name = quantity or plan.prescribed
    x, y, z = plan.model.grid.axes
    return xarray.DataArray(
        plan[name], coords={"z": z, "y": y, "x": x}, dims=("z", "y", "x"), name=name, attrs={"units": plan.unit(name)}
    )


def _structures(masks: Mapping[str, npt.NDArray[np.bool_]], ct: CT) -> Structures:
    bodies = [name for name in masks if name.casefold() in ("body", "external")]
    parts = []
    for name, mask in masks.items():
        if name in bodies or not mask.any():
            continue
        target = name.upper().startswith(("PTV", "CTV", "GTV", "ITV"))
        parts.append(Structure.from_mask(name, ct.grid, mask, role="target" if target else "oar"))
    outline = masks[bodies[0]] if bodies else find_external(ct).mask()
    name = bodies[0] if bodies else "external"
    return Structures([*parts, Structure.from_mask(name, ct.grid, outline, role="external")])


def _ct_of(folder: Path) -> Path | None:
    named = {file.name.lower(): file for file in folder.iterdir() if is_image(file)}
    return next((named[name + end] for name in _CT_NAMES for end in SUFFIXES if name + end in named), None)


def _read(path: str | Path) -> Any:
    file = Path(path)
    if not file.is_file():
        raise FileError(file, "no such file; an image is expected")
    try:
        return _library().ReadImage(str(file))
    except RuntimeError as error:
        reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), "damaged")
        raise FileError(file, f"cannot be read as an image ({reason.strip()[:120]})") from None


def _as_lps(part: Any, whole: Any) -> Any:
    """Return a layer of an old segmentation, which 3D Slicer wrote in RAS without saying so, in LPS."""
    if whole.HasMetaDataKey("NRRD_space"):
        return part
    direction = np.asarray(part.GetDirection()).reshape(3, 3)
    origin = np.asarray(part.GetOrigin())
    if whole.HasMetaDataKey("Segmentation_Extent"):  # Why: the origin is that of the image it was cut out of.
        extent = [int(word) for word in whole.GetMetaData("Segmentation_Extent").split()]
        origin = origin + direction @ (np.asarray(part.GetSpacing()) * extent[::2])
    part.SetOrigin((origin * (-1.0, -1.0, 1.0)).tolist())
    direction[:2] *= -1.0
    part.SetDirection(direction.reshape(-1).tolist())
    return part


def _along_axes(image: Any, path: str | Path) -> Any:
    """Return an image with its axes in the order and sense of LPS."""
    if image.GetDimension() != 3:
        raise FileError(Path(path), f"has {image.GetDimension()} dimensions; an image of three is expected")
    direction = np.abs(np.asarray(image.GetDirection()).reshape(3, 3))
    if np.abs(np.sort(direction, axis=0)[:2]).max() > _OBLIQUE:
        raise FileError(Path(path), "has axes that lie obliquely to the patient's; resample it along them first")
    return _library().DICOMOrient(image, "LPS")


def _array(image: Any) -> npt.NDArray[Any]:
    return np.asarray(_library().GetArrayFromImage(image))


def _grid(image: Any, path: str | Path) -> Grid:
    nx, ny, nz = image.GetSize()
    spacing, origin = image.GetSpacing(), image.GetOrigin()
    if not np.all(np.isfinite([*spacing, *origin])):
        raise FileError(Path(path), f"states no finite spacing and origin: {spacing}, {origin}")
    return Grid((nz, ny, nx), (spacing[0], spacing[1], spacing[2]), (origin[0], origin[1], origin[2]))


def _library() -> Any:
    try:
        import SimpleITK
    except ImportError as error:
        raise InputError("images of this kind need SimpleITK: pip install 'radplan[images]'") from error
    return SimpleITK
