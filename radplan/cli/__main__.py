"""``python -m radplan.cli``: the same as the command ``radplan``."""

from __future__ import annotations

import sys

from radplan.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
