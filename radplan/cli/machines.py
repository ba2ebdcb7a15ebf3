"""The verb ``radplan machines``: what is built in."""

from __future__ import annotations


def command() -> int:
    """List the built-in machines, collimators and limits of linacs."""
    from radplan.machines import MACHINES, library_machine
    from radplan.machines.limits import LIBRARY, read_limits
    from radplan.machines.mlc import MLCS

    print("machines")
    for name in MACHINES:
        machine = library_machine(name)
        print(f"  {name:<24} {machine.radiation}")
    print("collimators")
    print("  " + ", ".join(MLCS))
    print("limits")
    print("  " + ", ".join(read_limits(LIBRARY)))
    return 0
