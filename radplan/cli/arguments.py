"""How verbs read their arguments: lists by comma or blank, values that may be left out, names as pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

from radplan.errors import InputError

if TYPE_CHECKING:
    from radplan.analysis.gamma import GammaCriteria

StructureSet = Annotated[
    str | None, typer.Option(metavar="UID", help="Structure set of the DICOM folder, by UID or file.")
]
Series = Annotated[str | None, typer.Option(metavar="UID", help="CT series of the DICOM folder.")]
HuTable = Annotated[
    str | None, typer.Option("--hu-table", metavar="T", help="HU table: schneider, matrad or a file of two columns.")
]
LayerSpacing = Annotated[float | None, typer.Option(metavar="MM", help="Distance of particle layers in water.")]
BixelWidth = Annotated[float | None, typer.Option(metavar="MM", help="Side of a bixel, distance of spots (default 5).")]
Technique = Annotated[
    str | None, typer.Option(metavar="T", help="fluence, step_and_shoot, sliding_window or vmat (default fluence).")
]
Arcs = Annotated[int | None, typer.Option(metavar="N", help="Number of arcs of vmat (default 1).")]
Limits = Annotated[
    str | None, typer.Option(metavar="M", help="Linac whose limits hold (default TrueBeam), or a YAML file.")
]
DoseMask = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Structure in which dose counts (default: OpenKBP's mask, or the body)."),
]
Wished = Annotated[
    list[str] | None,
    typer.Option("--wish", metavar="NAME:mean=-20%", help="Move a structure's DVH (models steered by DVHs)."),
]


class Verb(TyperCommand):
    """A command whose list options take ``--gantry 0,72,144``, ``--gantry 0 72 144`` and ``--gantry 0 --gantry 72``.

    Blanks end a list where what follows is unlike its first entry: no number after a number, no pair after a pair
    ``A=B``. An option whose placeholder stands in brackets, ``[NAME]``, may be given without a value, which then is the
    empty text.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        options = [param for param in self.params if isinstance(param, TyperOption)]
        lists = {name for option in options if option.multiple for name in option.opts}
        bare = {name for option in options if (option.metavar or "").startswith("[") for name in option.opts}
        return super().parse_args(ctx, expanded(args, lists, bare))


def expanded(args: Sequence[str], lists: set[str], bare: set[str]) -> list[str]:
    """Return arguments in which the option's name stands before each entry of a list.

    >>> expanded(["box", "--gantry", "0", "72", "--out", "o"], {"--gantry"}, set())
    ['box', '--gantry', '0', '--gantry', '72', '--out', 'o']
    >>> expanded(["--fit-factor", "--skin", "3"], set(), {"--fit-factor"})
    ['--fit-factor', '', '--skin', '3']
    """
    given: list[str] = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        given.append(word)
        if word in bare and (not rest or _is_option(rest[0])):
            given.append("")
        if word not in lists or not rest:
            continue
        first = rest.pop(0)
        given.append(first)
        while rest and not _is_option(rest[0]) and _kind(rest[0]) == _kind(first):
            given += [word, rest.pop(0)]
    return given


def numbers(given: Sequence[str] | None, option: str) -> list[float] | None:
    """Return the numbers of a list option, None where it was not given.

    Raises
    ------
    InputError
        When something is no number.

    >>> numbers(["0,72", "144"], "--gantry")
    [0.0, 72.0, 144.0]
    """
    if not given:
        return None
    words = [word for text in given for word in text.replace(",", " ").split()]
    try:
        return [float(word) for word in words]
    except ValueError:
        raise InputError(f"{option} takes numbers such as {option} 0,72,144, got {' '.join(given)!r}") from None


def pairs(given: Sequence[str] | None, option: str) -> dict[str, str]:
    """Return OURS=THEIRS pairs as a mapping.

    Raises
    ------
    InputError
        When there is no pair.

    >>> pairs(["PTV=PTV_41.4"], "--names")
    {'PTV': 'PTV_41.4'}
    """
    known = {}
    for text in given or ():
        ours, sign, theirs = text.partition("=")
        if not (sign and ours and theirs):
            raise InputError(f"{option} takes OURS=THEIRS pairs, got {text!r}; quote names with blanks")
        known[ours] = theirs
    return known


def spacing(given: Sequence[str] | None, option: str) -> float | tuple[float, float, float] | None:
    """Return one spacing or three.

    Raises
    ------
    InputError
        When there are two numbers, or more than three.
    """
    values = numbers(given, option)
    if values is None or len(values) == 1:
        return None if values is None else values[0]
    if len(values) != 3:
        raise InputError(f"{option} takes one spacing or x,y,z, got {len(values)} numbers")
    return values[0], values[1], values[2]


def gamma_criteria(given: Sequence[str] | None, option: str) -> GammaCriteria:
    """Return the criteria of a list option, percent and mm; 3 % and 3 mm where it was not given.

    Raises
    ------
    InputError
        When there are not two numbers.

    >>> str(gamma_criteria(["2,2"], "--gamma"))
    '2 %/2 mm global, above 10 %'
    """
    from radplan.analysis.gamma import GammaCriteria

    values = numbers(given, option) or [3.0, 3.0]
    if len(values) != 2:
        raise InputError(f"{option} takes percent and mm such as {option} 3,3, got {len(values)} numbers")
    return GammaCriteria(values[0], values[1])


def file_kind(file: str, kinds: Sequence[str], option: str = "--out") -> str:
    """Return how a file's name ends, in lower case.

    Raises
    ------
    InputError
        When it is none of the kinds.

    >>> file_kind("curves.PNG", (".csv", ".png"))
    '.png'
    """
    kind = Path(file).suffix.lower()
    if kind not in kinds:
        raise InputError(f"{option} takes a file that ends in {', '.join(kinds)}, got {file!r}")
    return kind


def refuse(what: str, options: Mapping[str, object]) -> None:
    """Raise an `InputError` that names the options that were given and are none of what was asked for.

    Parameters
    ----------
    what : str
        Such as ``"a plan of protons"``.
    options : mapping of str to object
        Options that it does not take, with something that is true where they were given.

    >>> refuse("a plan of protons", {"--mlc": None, "--density-scaling": False})
    """
    given = [name for name, value in options.items() if value]
    if given:
        raise InputError(f"{', '.join(given)}: not an option for {what}; leave it out")


def _is_option(word: str) -> bool:
    return word.startswith("-") and _kind(word) != "number"


def _kind(word: str) -> str:
    try:
        for part in word.split(","):
            float(part)
    except ValueError:
        return "pair" if "=" in word else "text"
    return "number"
