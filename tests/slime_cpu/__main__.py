from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.slime_cpu.drive import carry_out
from tests.slime_cpu.plan import Plan

if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    report = carry_out(Plan(**json.loads(Path(sys.argv[1]).read_text())))
    Path(sys.argv[2]).write_text(json.dumps(report))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # slime leaves an event loop running in a daemon thread
