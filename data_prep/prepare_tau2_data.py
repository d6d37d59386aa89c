#!/usr/bin/env python3
"""`tau2-slime data` for a clone that is not installed: see ``--help``; everything is in ``tau2_slime.data.command``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tau2_slime.data.command import main

if __name__ == "__main__":
    sys.exit(main())
