"""How much memory is free where arrays live, so that what does not fit is refused before it is taken."""

from __future__ import annotations

from pathlib import Path

from radplan.arrays.devices import Device
from radplan.errors import CalculationError


def free_bytes(device: Device) -> int | None:
    """Return the free memory where a device's arrays live [bytes], or None where that is not known.

    On the host it is the least of what the system calls available, what the process's address space may still grow by,
    and what its control group leaves.
    """
    if device.backend == "torch" and device.native.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device.native)[0])
    if device.backend == "cupy":
        with device.native:
            import cupy

            return int(cupy.cuda.runtime.memGetInfo()[0])
    known = [room for room in (_available(), _address_space(), _control_group()) if room is not None]
    return min(known) if known else None


def require_memory(wanted: int, device: Device, what: str, way_out: str) -> None:
    """Raise `CalculationError` unless so many bytes are free where a device's arrays live.

    Parameters
    ----------
    wanted : int
        Memory that is about to be taken [bytes].
    device : Device
        Where.
    what, way_out : str
        What takes it, and what to do where it does not fit, for the message.

    >>> from radplan.arrays import as_device
    >>> require_memory(8, as_device("numpy"), "one number", "ask for none")
    """
    room = free_bytes(device)
    if room is not None and wanted > room:
        raise CalculationError(
            f"{what} takes {wanted / 1e9:.1f} GB of memory and {room / 1e9:.1f} GB are free on {device.name}: {way_out}"
        )


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return 1024 * kilobytes[0] if kilobytes else None


def _address_space() -> int | None:
    try:
        import resource
    except ImportError:  # no such limit on Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return int(limit)
    return max(int(limit) - pages * resource.getpagesize(), 0)


def _control_group() -> int | None:
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(int(limit) - used, 0)
