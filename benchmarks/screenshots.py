"""The pictures of the pages: the evaluation's report, the inspector and the viewer, on the embedded policy's own episodes.

    python benchmarks/screenshots.py [--output-dir docs/images]

Needs a Chromium (``apt-get install chromium``), or one named in CHROMIUM; no model, no key, no network.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import random
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.view import with_conversations, write_dump  # noqa: E402
from tests.inspector.browser import browsing  # noqa: E402

EVALUATION = (
    *("eval", "--domain", "retail", "--domain", "airline", "--tasks", "6", "--attempts", "4", "--gold-rate", "0.7"),
    *("--user-model", "scripted", "--user-model", "scripted-terse", "--output-dir", "runs/evaluation"),
)
ROLLOUT = (
    *("rollout", "--domain", "retail", "--samples-per-prompt", "4", "--groups", "5", "--mistakes", "0.5"),
    *("--output-dir", "runs/rollout"),
)
INSPECT = ("inspect", "runs/rollout", "--html", "inspector.html")
VIEW = ("view", "details", "--html", "view.html")


def write_dumps(run: Path, folder: Path) -> None:
    """Twelve dumps of a job that learns: from step to step more of the run's solved episodes, weights a version behind."""
    chance = random.Random(0)
    samples = with_conversations(run)
    folder.mkdir(parents=True)
    for step in range(12):
        rows = []
        for place in range(16):
            solved = chance.random() < 0.2 + 0.06 * step
            task = chance.choice(sorted({row["metadata"]["tau2"]["task_id"] for row in samples}))
            right = [
                row for row in samples if (row["reward"] == 1) == solved and row["metadata"]["tau2"]["task_id"] == task
            ]
            row = copy.deepcopy(chance.choice(right or samples))
            row["index"], row["group_index"] = 16 * step + place, 4 * step + place // 4
            late = chance.random() < 0.25
            for segment in row["metadata"]["tau2"]["segments"]:
                segment["weight_version"] = str(max(0, step - late))
            rows.append(row)
        write_dump(folder / f"{step}.pt", rows)


async def photograph(folder: Path) -> dict[str, bytes]:
    """File name -> PNG."""
    async with browsing(folder) as page:
        await page.look(1200, 1400)
        await page.open(folder / "runs" / "evaluation" / "report.html")
        await page.drawn()
        report = await page.picture()
        await page.look(1200, 900)
        await page.open(folder / "inspector.html")
        failed = await page.run("rows.findIndex((row) => row.reward === 0)")
        await page.run(f"openEpisode({failed})")
        for message in (".message.assistant", ".message.tool"):
            await page.click(f"{message} .expand")
            await page.until(f"document.querySelector('{message} .tokens .t')")
        await page.run("document.getElementById('detail').scrollTop = 0")
        await page.drawn()
        inspector = await page.picture()
        await page.open(folder / "view.html")
        return {"evaluation-report.png": report, "inspector.png": inspector, "view.png": await page.picture()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output-dir", type=Path, default=ROOT / "docs" / "images")
    output = parser.parse_args().output_dir.resolve()
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for arguments in (EVALUATION, ROLLOUT, INSPECT, VIEW):
            if arguments is VIEW:
                write_dumps(Path(scratch, "runs", "rollout"), Path(scratch, "details", "rollout_data"))
            code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from tau2_slime.cli.main import main; main()"
            subprocess.run([sys.executable, "-c", code, *arguments], cwd=scratch, check=True)
        for name, picture in asyncio.run(photograph(Path(scratch))).items():
            (output / name).write_bytes(picture)
            print(f"{output / name}: {len(picture) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
