"""One colour for each structure, the same in every figure."""

from __future__ import annotations

import math
from collections.abc import Iterable

from radplan.patient.structures import Structures

_TARGETS = ("#d62728", "#e8710a", "#b3127d", "#8c1a1a")
_ORGANS = ("#1f5fd0", "#1b9e4b", "#7b3fbf", "#008b9a", "#9c6b1c", "#5c8a00", "#d6489b", "#3b3b98", "#00796b", "#795548")
_EXTERNAL = "#8a8a8a"
_BRIGHTEST, _DARKEST = 0.68, 0.18
_ALIKE = 0.2

Color = tuple[float, float, float]


def structure_colors(structures: Structures) -> dict[str, Color]:
    """Colour of each structure: its own where it has one, else red tones for targets, grey for the external contour.

    Of structures with nearly the same colour of their own, the target keeps it, else the first; the others get the one
    farthest from those in use.

    >>> structure_colors(Structures(()))
    {}
    """
    colors: dict[str, Color] = {}
    for structure in sorted(structures.values(), key=lambda entry: entry.role != "target"):
        own = None if structure.color is None else _readable(structure.color)
        if own is not None and _room(own, colors.values()) > _ALIKE:
            colors[structure.name] = own
    for name, structure in structures.items():
        if name not in colors and structure.role == "external":
            colors[name] = _rgb(_EXTERNAL)
        elif name not in colors:
            tones = [_rgb(tone) for tone in (_TARGETS if structure.role == "target" else _ORGANS)]
            colors[name] = max(tones, key=lambda tone: _room(tone, colors.values()))
    return {name: colors[name] for name in structures}


def _rgb(tone: str) -> Color:
    """Return red, green and blue in [0, 1] of a hexadecimal colour.

    >>> _rgb("#ff0033")
    (1.0, 0.0, 0.2)
    """
    red, green, blue = (int(tone[k : k + 2], 16) / 255 for k in (1, 3, 5))
    return red, green, blue


def _room(one: Color, others: Iterable[Color]) -> float:
    """Return the distance from a colour to the nearest of others; 2, more than any, when there are none."""
    return min((math.dist(one, other) for other in others), default=2.0)


def _readable(color: Color) -> Color:
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
