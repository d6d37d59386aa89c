"""Precision and recall of every check of `tau2_slime.world.users.quality` on the labelled conversations.

    python benchmarks/simulator_quality.py [--mistakes]

The conversations (tests/data/simulator_conversations.json) were written for this project: what simulators do wrong, beside
what looks like it and is right. Each is labelled with all of its flaws, those that no check on words can find included.
Whoever wrote the checks wrote these too, so unseen simulators will show less.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tau2_slime.outcome import Flaw
from tau2_slime.world.users.quality import Turn, examine

LABELLED = Path(__file__).resolve().parents[1] / "tests" / "data" / "simulator_conversations.json"


@dataclass
class Score:
    hits: int = 0
    false_alarms: int = 0
    misses: int = 0
    mistakes: list[str] = field(default_factory=list)

    @property
    def precision(self) -> float:
        return self.hits / max(1, self.hits + self.false_alarms)

    @property
    def recall(self) -> float:
        return self.hits / max(1, self.hits + self.misses)


def load() -> list[tuple[dict[str, Any], set[Flaw]]]:
    """Each conversation, and the flaws that are found in it."""
    data = json.loads(LABELLED.read_text(encoding="utf-8"))
    out = []
    for conversation in data["conversations"]:
        turns = [Turn(role, text, calls) for role, text, calls in conversation["turns"]]
        findings = examine(turns, data["scenarios"][conversation["scenario"]], has_tools=conversation["tools"])
        out.append((conversation, {finding.flaw for finding in findings}))
    return out


def scores() -> dict[Flaw, Score]:
    """A conversation counts once for each flaw."""
    out = {flaw: Score() for flaw in Flaw}
    for conversation, found in load():
        for flaw in Flaw:
            labelled, score = str(flaw) in conversation["labels"], out[flaw]
            score.hits += labelled and flaw in found
            score.false_alarms += flaw in found and not labelled
            score.misses += labelled and flaw not in found
            if labelled != (flaw in found):
                said = " / ".join(text for role, text, _ in conversation["turns"] if role == "user")
                score.mistakes.append(f"{'missed' if labelled else 'false alarm'}: {said}")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mistakes", action="store_true", help="print every conversation that a check gets wrong")
    options = parser.parse_args()
    conversations = load()
    clean = sum(not conversation["labels"] for conversation, _ in conversations)
    print(f"{len(conversations)} conversations, {clean} of them without a flaw\n")
    print("| flaw | labelled | precision | recall |\n| --- | --- | --- | --- |")
    for flaw, score in scores().items():
        print(f"| `{flaw}` | {score.hits + score.misses} | {score.precision:.2f} | {score.recall:.2f} |")
        if options.mistakes:
            for mistake in score.mistakes:
                print(f"|   {mistake}")


if __name__ == "__main__":
    main()
