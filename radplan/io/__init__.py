"""Reading and writing: patients and machines from files, plans to files."""

from __future__ import annotations

from radplan.io.load import load_machine, load_patient

__all__ = ["load_machine", "load_patient"]
