"""Water tank data on disk: PTW's .mcc and tables of comma-separated values."""

from __future__ import annotations

from radplan.io.tank.reading import read_tank

__all__ = ["read_tank"]
