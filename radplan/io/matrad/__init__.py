"""matRad's files: patients, goals and machines."""

from __future__ import annotations

from radplan.io.matrad.machine import read_machine
from radplan.io.matrad.patient import read_patient

__all__ = ["read_machine", "read_patient"]
