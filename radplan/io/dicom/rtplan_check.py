"""Any vendor's photon RTPLAN judged on its own: attributes, references, metersets and the limits of a linac.

It reads the file with pydicom and imports nothing of what writes plans or makes them deliverable, so that an error
there does not hide itself here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from radplan.errors import FileError
from radplan.io.dicom.reading import open_dataset, reading
from radplan.io.dicom.rtplan import read_plan
from radplan.io.dicom.rtplan_attributes import attribute_findings
from radplan.io.dicom.rtplan_motion import Motion, motion_findings, motion_of, number, segment_seconds
from radplan.machines.limits import MachineLimits, machine_limits

Kind = Literal["attribute", "content", "limit"]


@dataclass(frozen=True)
class RTPlanFinding:
    """One thing that is wrong with an RTPLAN.

    Parameters
    ----------
    kind : "attribute", "content" or "limit"
        What DICOM asks for, what control points state, or what the linac can do.
    where : str
        Beam and control point.
    what : str
        What is wrong there.

    >>> print(RTPlanFinding("limit", "beam 1, control point 3", "0.02 MU per degree; 0.1 to 20 are possible"))
    limit: beam 1, control point 3: 0.02 MU per degree; 0.1 to 20 are possible
    """

    kind: Kind
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: {self.what}"


@dataclass(frozen=True, eq=False)
class RTPlanReport:
    """What the check of an RTPLAN found.

    Parameters
    ----------
    path : Path
        The file.
    limits : str
        The linac it was checked against.
    findings : tuple of RTPlanFinding
        None when nothing is wrong.
    mu : float
        Monitor units of a fraction, of all beams that could be read [MU].
    seconds : float
        How long they take under beam at least [s].
    beams : int
        Treatment beams that could be read.
    """

    path: Path
    limits: str
    findings: tuple[RTPlanFinding, ...]
    mu: float
    seconds: float
    beams: int

    def of(self, kind: Kind) -> tuple[RTPlanFinding, ...]:
        """Return the findings of one kind."""
        return tuple(finding for finding in self.findings if finding.kind == kind)

    def raise_for_errors(self) -> None:
        """Raise an error that names what was found.

        Raises
        ------
        FileError
            When anything was.
        """
        if self.findings:
            told = "; ".join(str(finding) for finding in self.findings[:5])
            raise FileError(self.path, f"{len(self.findings)} findings: {told}")

    def __str__(self) -> str:
        head = (
            f"{self.path.name} on {self.limits}: {self.beams} beams, {self.mu:.1f} MU, {self.seconds:.1f} s under beam"
        )
        kinds = ", ".join(f"{len(self.of(kind))} of {kind}s" for kind in get_args(Kind))
        return "\n".join([head, *map(str, self.findings), f"findings: {kinds}" if self.findings else "nothing found"])


def check_rtplan(path: str | Path, limits: MachineLimits | str | Path) -> RTPlanReport:
    """Judge a photon RTPLAN file by what DICOM asks, by what it states, and by what a linac can deliver.

    Parameters
    ----------
    path : path-like
        The file, of any system.
    limits : MachineLimits, str or path
        What the linac can do, its name in the library, or a YAML file.

    Raises
    ------
    FileError
        When the file is no DICOM file or no RTPLAN.
    UnknownNameError
        When no linac has that name.
    """
    path, allowed = Path(path), machine_limits(limits)
    dataset = open_dataset(path)
    with reading(path):
        if str(dataset.get("Modality", "")) != "RTPLAN":
            raise FileError(path, f"is a file of modality {dataset.get('Modality', '?')}; expected RTPLAN")
        findings = [RTPlanFinding("attribute", where, what) for where, what in attribute_findings(dataset)]
        motions, unread = _motions(dataset)
        findings += [RTPlanFinding("content", where, what) for where, what in unread]
        for motion in motions:
            findings += [RTPlanFinding("limit", where, what) for where, what in motion_findings(motion, allowed)]
    try:
        read_plan(path)
    except FileError as error:
        findings.append(RTPlanFinding("content", "plan", str(error).removeprefix(f"{path}: ")))
    seconds = math.fsum(float(segment_seconds(motion, allowed)[np.diff(motion.weight) > 0].sum()) for motion in motions)
    return RTPlanReport(
        path, allowed.name, tuple(findings), math.fsum(motion.mu for motion in motions), seconds, len(motions)
    )


def _motions(dataset: Any) -> tuple[list[Motion], list[tuple[str, str]]]:
    """Return the motion of every treatment beam, and why others have none."""
    units = {
        str(item.get("ReferencedBeamNumber")): number(item.get("BeamMeterset"))
        for group in dataset.get("FractionGroupSequence") or []
        for item in group.get("ReferencedBeamSequence") or []
        if item.get("BeamMeterset") is not None
    }
    motions, unread = [], []
    for beam in dataset.get("BeamSequence") or []:
        mu = units.get(str(beam.get("BeamNumber")), 0.0)
        if str(beam.get("TreatmentDeliveryType", "TREATMENT")) not in ("TREATMENT", "CONTINUATION") or mu == 0.0:
            continue
        if not (mu > 0 and math.isfinite(mu)):
            unread.append((f"beam {beam.get('BeamNumber')}", f"has a BeamMeterset of {mu}; expected a number > 0"))
            continue
        motion, reasons = motion_of(beam, mu)
        unread += reasons
        if motion is not None:
            motions.append(motion)
    if not motions and not unread:
        unread.append(("plan", "holds no treatment beam with monitor units (BeamMeterset)"))
    return motions, unread
