"""One colour for each structure, the same in every figure."""

from __future__ import annotations

from radplan.patient.structures import Structures

_TARGETS = ("#d62728", "#e8710a", "#b3127d", "#8c1a1a")
_ORGANS = ("#1f5fd0", "#1b9e4b", "#7b3fbf", "#008b9a", "#9c6b1c", "#5c8a00", "#d6489b", "#3b3b98", "#00796b", "#795548")
_EXTERNAL = "#8a8a8a"
_BRIGHTEST, _DARKEST = 0.68, 0.18


def structure_colors(structures: Structures) -> dict[str, str | tuple[float, float, float]]:
    """Colour of each structure: its own where it has one, else red tones for targets, grey for the external contour.

    >>> structure_colors(Structures(()))
    {}
    """
    colors: dict[str, str | tuple[float, float, float]] = {}
    targets = organs = 0
    for name, structure in structures.items():
        if structure.color is not None:
            colors[name] = _readable(structure.color)
        elif structure.role == "target":
            colors[name] = _TARGETS[targets % len(_TARGETS)]
            targets += 1
        elif structure.role == "external":
            colors[name] = _EXTERNAL
        else:
            colors[name] = _ORGANS[organs % len(_ORGANS)]
            organs += 1
    return colors


def _readable(color: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return the colour darkened or lightened, hue kept, until it stands out on white paper and on a dark CT.

    >>> _readable((0.5, 0.5, 0.5))
    (0.5, 0.5, 0.5)
    """
    red, green, blue = color
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    if luminance > _BRIGHTEST:
        share = _BRIGHTEST / luminance
        return red * share, green * share, blue * share
    if luminance < _DARKEST:
        share = (_DARKEST - luminance) / (1.0 - luminance)
        return red + share * (1 - red), green + share * (1 - green), blue + share * (1 - blue)
    return color
