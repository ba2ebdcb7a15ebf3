r"""IEC 61217 beam frames in a DICOM patient (LPS, mm): from world points to the beam's-eye view and back.

A linac beam has its own right-handed axes, the beam-limiting-device (BLD) frame: origin at the isocentre, ``z``
toward the source, ``x`` and ``y`` along the jaws. For a head-first supine patient and all angles 0, ``x`` points to
the patient's left, ``y`` to the head and ``z`` to the ceiling (anterior). The angles then turn it as IEC 61217 says:

- *gantry* 0 enters from anterior, 90 from the patient's left, 180 from posterior, 270 from the right;
- *couch* (patient support) positive is the couch turning counter-clockwise seen from above, so that in the patient
  the beam turns clockwise: couch 90 with gantry 90 enters from the feet;
- *collimator* positive turns the jaws counter-clockwise seen from the source: collimator 90 at gantry 0 has its ``x``
  toward the head.

A patient who lies otherwise (DICOM PatientPosition HFP, FFS, HFDR, ...) is turned against the room, so that the same
angles enter elsewhere: gantry 0 comes from above, which for a prone patient is posterior.

matRad's rotations are the same with the collimator at 0; its beam's-eye-view axes are named differently:
``x = x_bev``, ``y = z_bev``, ``z = -y_bev``.

Source: IEC 61217:2011, Radiotherapy equipment - Coordinates, movements and scales.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from radplan.arrays import Array, like, namespace
from radplan.errors import InputError, UnknownNameError

Floats = npt.NDArray[np.float64]

# Why: at all angles 0 the columns are the BLD axes x, y, z in LPS: left, superior, anterior.
_AXES_AT_ZERO = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0))

PATIENT_POSITIONS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "HFS": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "HFP": ((-1, 0, 0), (0, -1, 0), (0, 0, 1)),
    "HFDR": ((0, -1, 0), (1, 0, 0), (0, 0, 1)),
    "HFDL": ((0, 1, 0), (-1, 0, 0), (0, 0, 1)),
    "FFS": ((-1, 0, 0), (0, 1, 0), (0, 0, -1)),
    "FFP": ((1, 0, 0), (0, -1, 0), (0, 0, -1)),
    "FFDR": ((0, -1, 0), (-1, 0, 0), (0, 0, -1)),
    "FFDL": ((0, 1, 0), (1, 0, 0), (0, 0, -1)),
}
"""DICOM PatientPosition: head or feet first; supine, prone, on the right or the left side.

Each is the rotation from where a direction of the room points in a head-first supine patient (LPS) to where it points
in this one."""


def beam_rotation(gantry: float, couch: float = 0.0, collimator: float = 0.0, patient_position: str = "HFS") -> Floats:
    r"""Return the rotation whose columns are the BLD axes in the world.

    With isocentre :math:`c`, a world point is :math:`p = c + R\,b` and a BLD point is :math:`b = R^T (p - c)`.

    Parameters
    ----------
    gantry, couch, collimator : float
        IEC 61217 angles [degree]. Multiples of 90 are exact: their sines and cosines are 0, 1 and -1.
    patient_position : str
        How the patient lies, one of `PATIENT_POSITIONS`.

    Returns
    -------
    array of shape (3, 3)
        Columns: BLD x, y, z in LPS. Orthonormal, determinant 1.

    Raises
    ------
    InputError
        When an angle is not a finite number.
    UnknownNameError
        When the patient position is not one of DICOM's eight recumbent ones.

    Notes
    -----
    Source: IEC 61217:2011, sections 3.2 to 3.6; DICOM PS3.3 C.7.3.1.1.2 for patient positions.

    >>> beam_rotation(gantry=90.0)[:, 2].tolist()  # toward the source: the patient's left
    [1.0, 0.0, 0.0]
    >>> beam_rotation(gantry=90.0, patient_position="HFP")[:, 2].tolist()  # and the right of one who lies prone
    [-1.0, 0.0, 0.0]
    """
    if patient_position not in PATIENT_POSITIONS:
        raise UnknownNameError("patient position", str(patient_position), PATIENT_POSITIONS)
    cg, sg = _cos_sin("gantry", gantry)
    cc, sc = _cos_sin("couch", couch)
    cb, sb = _cos_sin("collimator", collimator)
    turn_couch = np.asarray([[cc, 0.0, sc], [0.0, 1.0, 0.0], [-sc, 0.0, cc]])
    turn_gantry = np.asarray([[cg, -sg, 0.0], [sg, cg, 0.0], [0.0, 0.0, 1.0]])
    turn_collimator = np.asarray([[cb, -sb, 0.0], [sb, cb, 0.0], [0.0, 0.0, 1.0]])
    lies = np.asarray(PATIENT_POSITIONS[patient_position], dtype=np.float64)
    rotation: Floats = lies @ turn_couch @ turn_gantry @ np.asarray(_AXES_AT_ZERO) @ turn_collimator + 0.0
    return rotation


def source_position(isocenter: npt.ArrayLike, rotation: npt.ArrayLike, sad: float) -> Floats:
    """Return the world position of the source, ``sad`` from the isocentre along the beam's z axis.

    Parameters
    ----------
    isocenter : array of shape (3,)
        World position of the isocentre [mm].
    rotation : array of shape (3, 3)
        As `beam_rotation` returns it.
    sad : float
        Source-axis distance [mm].

    Returns
    -------
    array of shape (3,)
        World position [mm].

    >>> source_position([0.0, 0.0, 0.0], beam_rotation(90.0), 1000.0).tolist()
    [1000.0, 0.0, 0.0]
    """
    position: Floats = np.asarray(isocenter, dtype=np.float64) + sad * np.asarray(rotation, dtype=np.float64)[:, 2]
    return position


def world_to_beam(points: Array, isocenter: npt.ArrayLike, rotation: npt.ArrayLike) -> Array:
    r"""Return BLD coordinates :math:`R^T (p - c)` of world points.

    Parameters
    ----------
    points : array of shape (n, 3)
        World positions [mm], of any array library.
    isocenter : array of shape (3,)
        World position of the isocentre [mm].
    rotation : array of shape (3, 3)
        As `beam_rotation` returns it.

    Returns
    -------
    array of shape (n, 3)
        x and y along the jaws and z toward the source [mm], in the namespace, device and dtype of `points`.

    >>> world_to_beam(np.asarray([[0.0, 0.0, 7.0]]), [0.0, 0.0, 0.0], beam_rotation(0.0)).tolist()
    [[0.0, 7.0, 0.0]]
    """
    xp = namespace(points)
    offset = points - like(np.asarray(isocenter, dtype=np.float64), points)
    return xp.matmul(offset, like(np.asarray(rotation, dtype=np.float64), points))


def beam_to_world(points: Array, isocenter: npt.ArrayLike, rotation: npt.ArrayLike) -> Array:
    r"""Return world positions :math:`c + R\,b` of BLD points; the inverse of `world_to_beam`.

    Parameters
    ----------
    points : array of shape (n, 3)
        BLD coordinates [mm], of any array library.
    isocenter : array of shape (3,)
        World position of the isocentre [mm].
    rotation : array of shape (3, 3)
        As `beam_rotation` returns it.

    Returns
    -------
    array of shape (n, 3)
        World positions [mm].

    >>> beam_to_world(np.asarray([[0.0, 7.0, 0.0]]), [0.0, 0.0, 1.0], beam_rotation(0.0)).tolist()
    [[0.0, 0.0, 8.0]]
    """
    xp = namespace(points)
    turned = xp.matmul(points, like(np.asarray(rotation, dtype=np.float64).T, points))
    return turned + like(np.asarray(isocenter, dtype=np.float64), points)


def isocentre_plane(points: Array, sad: float) -> tuple[Array, Array, Array]:
    r"""Return where the rays from the source through BLD points cross the isocentre plane.

    With :math:`L = \mathrm{SAD} - z`, the point lands at :math:`(x, y)\,\mathrm{SAD}/L`.

    Parameters
    ----------
    points : array of shape (n, 3)
        BLD coordinates [mm], as `world_to_beam` returns them, on the patient's side of the source (z < sad).
    sad : float
        Source-axis distance [mm].

    Returns
    -------
    x, y : arrays of shape (n,)
        Position in the isocentre plane [mm].
    distance : array of shape (n,)
        Distance L from the source along the beam axis [mm].

    >>> x, y, distance = isocentre_plane(np.asarray([[12.0, -6.0, -200.0]]), 1000.0)
    >>> x.tolist(), y.tolist(), distance.tolist()
    ([10.0], [-5.0], [1200.0])
    """
    distance = sad - points[:, 2]
    return points[:, 0] * sad / distance, points[:, 1] * sad / distance, distance


def _cos_sin(name: str, angle: float) -> tuple[float, float]:
    """Return cosine and sine of an angle [degree], exact at multiples of 90."""
    if not math.isfinite(angle):
        raise InputError(f"{name} angle must be a finite number of degrees, got {angle}")
    quarter, rest = divmod(float(angle), 90.0)
    if rest == 0.0:
        return ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[int(quarter) % 4]
    return math.cos(math.radians(angle)), math.sin(math.radians(angle))
