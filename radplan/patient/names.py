"""Names of structures: clinical spellings brought to the names of AAPM TG-263, and never by silent guess.

Four steps in order, each reported: *clean* (case, separators, prefixes, laterality), *target* (kind, level, dose),
*margin* (planning risk volumes), *dictionary* (synonyms, then similar spelling). Where two readings are as likely
the name is ambiguous and none is chosen.

Source of the names: Mayo et al., Int. J. Radiat. Oncol. Biol. Phys. 100 (2018) 1057 (TG-263).
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from types import MappingProxyType

_TARGET = re.compile(r"(?P<kind>gtv|ctv|itv|ptv)\s*(?P<part>[pn](?![a-z]))?\s*(?P<rest>.*)")
_LEVELS = {
    "high": "High", "hi": "High", "hr": "High", "hd": "High",
    "mid": "Mid", "intermediate": "Mid", "int": "Mid", "ir": "Mid", "md": "Mid",
    "low": "Low", "lo": "Low", "lr": "Low", "ld": "Low",
}  # fmt: skip
_COMBINED = re.compile(r"\b(gtv|ctv|itv|ptv|less|minus|sub|without|ohne|not|and|und|ring|wall)\b")
"""Words of names that stand for parts or sums of structures."""
_LENGTH = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>mm|cm)?$")
_SIMILAR = 0.62
"""Least similarity of a spelling to a synonym that is no exact match."""
_APART = 0.1
"""Least distance in confidence between the best reading and the next."""
_LUNGS = ("Lung", "Lungs")
_LEAST_DOSE_GY = 10.0
"""A number of a target below this is a count, not a dose [Gy]."""
_CENTIGRAY = 1000.0
"""From here on a number of a target is in cGy."""


@dataclass(frozen=True)
class StructureName:
    """One spelling, read.

    Parameters
    ----------
    original : str
        As it was written.
    canonical : str
        The TG-263 name; empty where none was found.
    confidence : float
        1 for a name of the dictionary, less for similar spelling and for marks such as ``old``.
    step : str
        What found it: ``"target"``, ``"dictionary"``, ``"similar"``, or why not: ``"unknown"``, ``"combined"``.
    candidates : tuple of str
        Canonical names as likely as each other, where the name is ambiguous.
    dose : float, optional
        Prescribed dose that the name of a target states [Gy].
    margin : float, optional
        Margin that the name of a planning risk volume states [mm].
    """

    original: str
    canonical: str = ""
    confidence: float = 0.0
    step: str = "unknown"
    candidates: tuple[str, ...] = ()
    dose: float | None = None
    margin: float | None = None

    @property
    def is_target(self) -> bool:
        """Whether it names a GTV, CTV, ITV or PTV."""
        return self.step == "target"


@dataclass(frozen=True)
class NameMap:
    """What the names of one patient mean.

    Parameters
    ----------
    matched : mapping of str to StructureName
        By canonical name.
    unmatched : tuple of StructureName
        Names without a meaning here, and second names of what has a better one.
    ambiguous : tuple of StructureName
        Names with several meanings as likely as each other, or several names of one meaning.
    """

    matched: Mapping[str, StructureName] = field(default_factory=dict)
    unmatched: tuple[StructureName, ...] = ()
    ambiguous: tuple[StructureName, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "matched", MappingProxyType(dict(self.matched)))

    @property
    def originals(self) -> dict[str, str]:
        """Canonical names to the names of the patient."""
        return {canonical: name.original for canonical, name in self.matched.items()}

    @property
    def targets(self) -> dict[str, float | None]:
        """Planning target volumes, canonical name to the dose that the name states [Gy]."""
        return {key: name.dose for key, name in self.matched.items() if name.is_target and key.startswith("PTV")}


def normalise(names: Iterable[str]) -> NameMap:
    """Return what names of structures mean, each chosen once and never by silent guess.

    Parameters
    ----------
    names : iterable of str
        As the structure set spells them.

    >>> found = normalise(["lt parotid", "Cord", "PTV 6996", "Optic"])
    >>> found.originals
    {'Parotid_L': 'lt parotid', 'SpinalCord': 'Cord', 'PTV_6996': 'PTV 6996'}
    >>> found.targets, found.ambiguous[0].candidates
    ({'PTV_6996': 69.96}, ('OpticChiasm', 'OpticNrv'))
    """
    readings = [read_name(name) for name in names]
    ambiguous = [reading for reading in readings if reading.candidates]
    unmatched = [reading for reading in readings if not reading.canonical and not reading.candidates]
    groups: dict[str, list[StructureName]] = {}
    for reading in readings:
        if reading.canonical:
            groups.setdefault(reading.canonical, []).append(reading)
    matched = {}
    for canonical, group in groups.items():
        best, *others = sorted(group, key=lambda reading: -reading.confidence)
        if others and best.confidence - others[0].confidence < _APART:
            ambiguous += [replace(reading, candidates=(canonical,)) for reading in group]
            continue
        matched[canonical] = best
        unmatched += others
    return NameMap(matched, tuple(unmatched), tuple(ambiguous))


def read_name(text: str) -> StructureName:
    """Return the meaning of one spelling.

    >>> read_name("Cord + 0.5 cm").canonical, read_name("PTVp_70").dose, read_name("Parotis re.").canonical
    ('SpinalCord_PRV05', 70.0, 'Parotid_R')
    """
    plain, penalty = _cleaned(text)
    target = _read_target(text, plain, penalty)
    if target is not None:
        return target
    if plain.replace(" ", "") not in _synonyms() and _COMBINED.search(plain):
        return StructureName(text, step="combined")
    organ, margin = _split_margin(plain)
    organ = re.sub(r"[+\-]", " ", organ).strip()
    return _read_organ(text, organ, margin, penalty)


@cache
def names_lung(text: str) -> bool:
    """Say whether a name stands for lung, of whatever side, or for part of it, as ``Lungs-GTV`` does; no target does.

    >>> [name for name in ("LUNG_R", "Lunge li.", "common lung", "Lungs-GTV", "PTV", "Heart") if names_lung(name)]
    ['LUNG_R', 'Lunge li.', 'common lung', 'Lungs-GTV']
    """
    reading = read_name(text)
    meant = [name for name in (reading.canonical, *reading.candidates) if name]
    if meant:
        return all(name.split("_")[0] in _LUNGS for name in meant)
    plain = _cleaned(text)[0]
    if _TARGET.match(plain):
        return False
    # Why: alone "long" is Dutch for lung, beside other words it is English.
    words = [word for word in re.split(r"[^a-z]+", plain) if word != "long"]
    return bool(re.search(r"(?<!p)lung", plain)) or any(_synonyms().get(word) in _LUNGS for word in words)


def _cleaned(text: str) -> tuple[str, float]:
    """Return lower-case words with single blanks, and what marks such as a prefix z cost in confidence."""
    words = unicodedata.normalize("NFKD", text.strip())
    words = "".join(letter for letter in words if not unicodedata.combining(letter))
    penalty = 0.0
    shorn = re.sub(r"^(~|[zZ]_?(?=[A-Z0-9])|[_*!]+)", "", words)
    if shorn != words:
        penalty += 0.2
    shorn = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", shorn.replace("cGy", "cgy"))
    shorn = re.sub(r"(?<=[a-z])(?=[LR](?:$|[_ ]))", " ", shorn)
    shorn = re.sub(r"(?<=\d),(?=\d)", ".", shorn)
    shorn = re.sub(r"(?<!\d)\.|\.(?!\d)", " ", shorn.casefold().replace("ß", "ss"))
    shorn = re.sub(r"[_/\\:;()\[\]{}'\"#^~*!&,]+", " ", shorn)
    shorn = re.sub(r"(?<=[a-z])-(?=[a-z])", " ", shorn)
    tokens = re.sub(r"\s+", " ", shorn).strip().split(" ")
    noise = set(_library()["noise"])
    count = len(tokens)
    while len(tokens) > 1 and tokens[-1] in noise:
        tokens.pop()
    if len(tokens) < count:
        penalty += 0.2
    return " ".join(tokens), penalty


def _read_target(text: str, plain: str, penalty: float) -> StructureName | None:
    """Return the target a cleaned name stands for, None where it is none."""
    match = _TARGET.match(plain)
    if match is None:
        return None
    rest = re.sub(r"(?<=[a-z])(?=\d)", " ", match["rest"])
    rest = re.sub(r"(?<=\d)(?=(gy|cgy|high|mid|low)\b)", " ", rest)
    tokens = [token for token in re.sub(r"[+\-]", " ", rest).split() if token not in ("gy", "cgy", "total", "dose")]
    if re.search(r"\b(mm|cm)\b|\d(mm|cm)\b|\b(less|minus|ring|and|not)\b", rest) or re.search(r"[+\-]\s*[a-z]", rest):
        return StructureName(text, step="combined")
    canonical, dose = match["kind"].upper() + (match["part"] or ""), None
    for token in tokens:
        if token in _LEVELS:
            canonical += f"_{_LEVELS[token]}"
        elif re.fullmatch(r"\d+(\.\d+)?", token):
            number = float(token)
            if number >= _LEAST_DOSE_GY and dose is None:
                dose = number / 100.0 if number >= _CENTIGRAY else number
                canonical += f"_{round(100.0 * dose):04d}"
            else:
                canonical += f"{int(number)}"
        elif token in ("p", "n", "t", "ln", "node", "nodes", "nodal", "primary", "boost"):
            letters = {"t": "p", "primary": "p", "ln": "n", "node": "n", "nodes": "n", "nodal": "n", "boost": "p"}
            canonical = canonical[:3] + letters.get(token, token) + canonical[3:]
        else:
            return StructureName(text, step="combined")
    return StructureName(text, canonical, 1.0 - penalty, "target", dose=dose)


def _split_margin(plain: str) -> tuple[str, float | None]:
    """Return the organ without the margin of a planning risk volume, and that margin [mm], 0 where none is stated."""
    words = re.sub(r"(?<=[a-z])(?=\d)", " ", plain)
    risk = re.search(r"\bprv\b", words) is not None
    words = re.sub(r"\bprv\b", " ", words)
    words = re.sub(r"\s*\+\s*", " ", words).strip()
    match = _LENGTH.search(words)
    if match is None:
        return words, 0.0 if risk else None
    number = float(match["number"]) * (10.0 if match["unit"] == "cm" else 1.0)
    organ = words[: match.start()].strip()
    tail = words[match.end() :].strip()
    return f"{organ} {tail}".strip(), number


def _read_organ(text: str, organ: str, margin: float | None, penalty: float) -> StructureName:
    """Return the organ that words stand for, with its side and margin."""
    library = _library()
    left, right = set(library["left"]), set(library["right"])
    whole = _synonyms().get(organ.replace(" ", ""))
    words, side = organ.split(), ""
    if whole is None and len(words) > 1:
        order = (len(words) - 1, *range(len(words) - 1))
        index = next((i for i in order if words[i] in left | right), None)
        if index is not None:
            side = "L" if words.pop(index) in left else "R"
    bare = "".join(words)
    exact = _synonyms().get(bare)
    if exact is not None:
        return _named(text, (exact,), side, margin, 1.0 - penalty, "dictionary")
    parts = _containing(bare)
    if len(parts) > 1:
        return StructureName(text, candidates=parts, step="similar")
    scores = _similarities(bare)
    likely = [name for name, score in scores.items() if score >= _SIMILAR]
    if not likely:
        return StructureName(text)
    best = max(scores[name] for name in likely)
    close = tuple(name for name in likely if best - scores[name] < _APART)
    return _named(text, close, side, margin, best - penalty, "similar")


def _named(
    text: str, organs: tuple[str, ...], side: str, margin: float | None, confidence: float, step: str
) -> StructureName:
    """Return a reading; ambiguous where organs are several, or a paired organ has no side."""
    paired = _library()["paired"]
    if len(organs) > 1:
        return StructureName(text, candidates=tuple(sorted(organs)), confidence=confidence, step=step)
    organ = organs[0]
    suffix = "" if margin is None else f"_PRV{round(margin):02d}" if margin else "_PRV"
    if organ in paired and not side:
        sides = (f"{organ}_L{suffix}", f"{organ}_R{suffix}")
        return StructureName(text, candidates=sides, confidence=confidence, step=step)
    if side and organ not in paired:
        return StructureName(text, step="unknown")
    return StructureName(
        text, organ + (f"_{side}" if side else "") + suffix, confidence, step, margin=margin if margin else None
    )


def _containing(bare: str) -> tuple[str, ...]:
    """Return organs of which the word is a whole part of a synonym, as optic is of optic nerve and optic chiasm."""
    known = {**_library()["organs"], **_library()["paired"]}
    return tuple(
        sorted(name for name, words in known.items() if any(bare in entry.split() for entry in words) and len(bare) > 3)
    )


def _similarities(bare: str) -> dict[str, float]:
    """Return the best similarity of a spelling to the synonyms of each organ, by shared trigrams (Dice) [0..1]."""
    mine = _trigrams(bare)
    scores: dict[str, float] = {}
    for synonym, name in _synonyms().items():
        theirs = _trigrams(synonym)
        score = 2.0 * len(mine & theirs) / (len(mine) + len(theirs))
        scores[name] = max(scores.get(name, 0.0), score)
    return scores


def _trigrams(word: str) -> frozenset[str]:
    padded = f"  {word} "
    return frozenset(padded[i : i + 3] for i in range(len(padded) - 2))


@cache
def _library() -> dict[str, dict[str, list[str]]]:
    text = resources.files("radplan.patient").joinpath("library/organs.json").read_text(encoding="utf-8")
    read: dict[str, dict[str, list[str]]] = json.loads(text)
    return read


@cache
def _synonyms() -> dict[str, str]:
    """Return every synonym without blanks, and every canonical name, with the organ it stands for."""
    known: dict[str, str] = {}
    for name, words in {**_library()["organs"], **_library()["paired"]}.items():
        for word in (*words, name.replace("_", " ").casefold()):
            known[word.replace(" ", "")] = name
    return known
