"""One DICOM file: opened quietly, its attributes taken with a type, and with a reason when they are wrong."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from struct import error as StructError  # noqa: N812
from typing import Any

import numpy as np
import numpy.typing as npt

from radplan.errors import FileError, RadplanError

logger = logging.getLogger(__name__)

Dataset = Any
Floats = npt.NDArray[np.float64]

SUFFIXES = (".dcm", ".dicom", ".ima")
"""File name endings that say DICOM where the 128-byte preamble is missing."""

ODD = (
    RadplanError,
    ArithmeticError,
    AttributeError,
    LookupError,
    NotImplementedError,
    StructError,
    TypeError,
    ValueError,
)
"""What taking an attribute out of an odd item may raise: radplan's own words, or what pydicom's conversions give."""

ROUNDING = 0.1
"""How far positions of one series may stand from even or equal ones to be these, written rounded [mm]; thin slices that
part of their spacing."""

_REACH = 1e5
"""Largest position or length that can be meant [mm]: 100 m."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong inside into one `FileError` that names `path`; keep pydicom's warnings in.

    pydicom converts values when they are first looked at, and a damaged file can make it raise nearly anything. What it
    logs quotes values, which may be the patient's name.
    """
    with warnings.catch_warnings(), _silent(logging.getLogger("pydicom")):
        warnings.simplefilter("ignore")
        try:
            yield
        except RadplanError:
            raise
        except OSError as error:
            raise FileError(path, f"cannot be read: {error.strerror or error}") from None
        except ImportError as error:
            raise FileError(
                path, f"cannot be read here: the package {error.name} is missing; pip install {error.name}"
            ) from error
        except MemoryError as error:
            raise FileError(path, "does not fit into memory") from error
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            raise FileError(
                path, f"is damaged or no valid DICOM file ({type(error).__name__}: {said}); export it again"
            ) from error


@contextmanager
def inside(item: str) -> Iterator[None]:
    """Name the item of the file, such as ``"beam 2"``, in each `FileError` from within; items may be nested."""
    try:
        yield
    except FileError as error:
        raise FileError(error.path, error.cause, f"{item}, {error.item}" if error.item else item) from None


@contextmanager
def _silent(logger: logging.Logger) -> Iterator[None]:
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def is_dicom(path: Path) -> bool:
    """Return whether a file claims to be DICOM: by the preamble, or by its name."""
    if path.name.upper() == "DICOMDIR":
        return False
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM" or path.suffix.lower() in SUFFIXES
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror or error}") from None


def open_dataset(path: Path, pixels: bool = True) -> Dataset:
    """Return the pydicom dataset of a file, with or without what follows from the pixel data on."""
    with reading(path):
        import pydicom
        from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

        content = path.read_bytes()
        if not content:
            raise FileError(path, "is empty; expected a DICOM file")
        dataset = pydicom.dcmread(BytesIO(content), stop_before_pixels=not pixels, force=True)
        if "SOPClassUID" not in dataset and "Modality" not in dataset:
            raise FileError(path, "is no DICOM file: holds neither SOPClassUID nor Modality")
        if "TransferSyntaxUID" not in dataset.file_meta:
            implicit, little = dataset.original_encoding
            guess = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
            dataset.file_meta.TransferSyntaxUID = guess if little else ExplicitVRBigEndian
        return dataset


def text_of(path: Path, dataset: Dataset, keyword: str, default: str | None = None) -> str:
    """Return an attribute as text without surrounding blanks; `default` where it is absent or empty, else an error."""
    value = dataset.get(keyword)
    found = "" if value is None else str(value).strip().strip("\0")
    if found:
        return found
    if default is None:
        raise FileError(path, f"has no {keyword}")
    return default


def numbers_of(path: Path, dataset: Dataset, keyword: str, count: int | None = None) -> Floats:
    """Return a numeric attribute as (count,) finite numbers; of any length >= 1 for ``count=None``."""
    if keyword not in dataset:
        raise FileError(path, f"has no {keyword}")
    value = _raw_numbers(dataset, keyword)
    if value.size == 0 or (count is not None and value.size != count):
        raise FileError(path, f"{keyword} holds {value.size} numbers; expected {count or 'one or more'}")
    if not np.isfinite(value).all():
        raise FileError(path, f"{keyword} holds a value that is NaN or infinite")
    return value


def number_of(path: Path, dataset: Dataset, keyword: str) -> float:
    """Return an attribute that must be one finite number."""
    return float(numbers_of(path, dataset, keyword, 1)[0])


def whole_of(path: Path, dataset: Dataset, keyword: str) -> int:
    """Return an attribute that must be one whole number."""
    value = number_of(path, dataset, keyword)
    if not value.is_integer():
        raise FileError(path, f"{keyword} is {value:g}; expected a whole number")
    return int(value)


def positions_of(path: Path, dataset: Dataset, keyword: str, count: int | None = None) -> Floats:
    """Return positions or lengths [mm], refused where they lie further out than a treatment room."""
    value = numbers_of(path, dataset, keyword, count)
    if np.abs(value).max() > _REACH:
        raise FileError(path, f"{keyword} holds {value[np.abs(value).argmax()]:g} mm: the file is damaged")
    return value


def even_step(places: Floats) -> tuple[float, Floats]:
    """Return the step of an even series between the first and the last place, and how far each place is from its own.

    >>> step, off = even_step(np.asarray([0.0, 2.0, 4.0, 6.1]))
    >>> round(step, 4), off.round(4).tolist()
    (2.0333, [0.0, 0.0333, 0.0667, 0.0])
    """
    step = float(places[-1] - places[0]) / (places.size - 1)
    return float(np.round(step, 9)), np.abs(places - places[0] - step * np.arange(places.size))


def items_of(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence; none where it is absent."""
    return list(dataset.get(keyword) or [])


def pixels_of(path: Path, dataset: Dataset) -> npt.NDArray[Any]:
    """Return the stored values, (rows, columns) or (frames, rows, columns), after their size has been checked."""
    if "PixelData" not in dataset:
        raise FileError(path, "holds no pixel data: the file is cut short or no image")
    if text_of(path, dataset, "PhotometricInterpretation") != "MONOCHROME2":
        raise FileError(path, f"PhotometricInterpretation is {dataset.PhotometricInterpretation}; expected MONOCHROME2")
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        _check_decoder(path, dataset.file_meta.TransferSyntaxUID)
        return np.asarray(dataset.pixel_array)
    counts = [whole_of(path, dataset, key) for key in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")]
    frames = whole_of(path, dataset, "NumberOfFrames") if dataset.get("NumberOfFrames") else 1
    frame = math.prod(counts) / 8.0
    needed, stored = math.ceil(frames * frame), len(dataset.PixelData)
    # Why: PS3.5 8.1.1 lets files end in padding; what holds another image is none.
    if not needed <= stored < needed + max(frame, 2.0):
        raise FileError(path, f"holds {stored} bytes of pixel data; {needed} are expected: the file is damaged")
    if stored > needed + 1:
        logger.info("%s: %d bytes of padding after the pixel data are passed over", path.name, stored - needed)
        dataset.PixelData = dataset.PixelData[: needed + needed % 2]
    return np.asarray(dataset.pixel_array)


_DECODERS = {
    "JPEG-LS": "pyjpegls",
    "JPEG 2000": "pylibjpeg pylibjpeg-openjpeg",
    "High-Throughput JPEG 2000": "pylibjpeg pylibjpeg-openjpeg",
    "JPEG": "pylibjpeg pylibjpeg-libjpeg",
}
"""Packages that decompress each family of images."""


def _check_decoder(path: Path, syntax: Any) -> None:
    """Raise where the images are compressed in a way that nothing installed here can undo."""
    from pydicom.pixels import get_decoder

    try:
        if get_decoder(syntax).is_available:
            return
        packages = next((names for family, names in _DECODERS.items() if syntax.name.startswith(family)), "")
    except NotImplementedError:
        packages = ""
    advice = f"pip install {packages}, or " if packages else ""
    raise FileError(path, f"is compressed as {syntax.name}, which cannot be read here: {advice}export it uncompressed")


def _raw_numbers(dataset: Dataset, keyword: str) -> Floats:
    from pydicom.datadict import tag_for_keyword
    from pydicom.dataelem import RawDataElement

    element = dataset.get_item(tag_for_keyword(keyword))
    value = element.value
    decimal = isinstance(element, RawDataElement) and isinstance(value, bytes) and element.VR in (None, "DS", "IS")
    if decimal and _is_decimal(keyword):
        # Why: a contour file holds 10^5 decimal strings, and pydicom makes an object of each.
        listed = value.rstrip(b"\0 ").split(b"\\")
        return np.asarray([float(part) for part in listed if part.strip()], dtype=np.float64)
    value = dataset[keyword].value
    return np.atleast_1d(np.asarray([] if value is None else value, dtype=np.float64))


def _is_decimal(keyword: str) -> bool:
    from pydicom.datadict import dictionary_VR

    return dictionary_VR(keyword) in ("DS", "IS")
