"""Precision and recall of every check of `tau2_slime.world.users.quality` on the labelled conversations, and what each
`user_strategy` makes of a simulator that writes their flaws.

    python benchmarks/simulator_quality.py [--mistakes]

The conversations (tests/data/simulator_conversations.json) were written for this project: what simulators do wrong, beside
what looks like it and is right. Each is labelled with all of its flaws, those that no check on words can find included.
Whoever wrote the checks wrote these too, so unseen simulators will show less.

For the strategies, the last message of a conversation is the simulator's first draft, and a clean one follows whenever
it is asked again. The judge of verify and reflection is always right. Real ones are not, so this is their best case.
`react` has no part in this: it changes what a model writes, and no model writes here.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tau2_slime.outcome import Flaw
from tau2_slime.world import tau2_compat
from tau2_slime.world.users.quality import Turn, examine
from tau2_slime.world.users.strategies import STRATEGIES

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


class Faulty:
    """A simulator whose first draft is ``draft``; whatever it writes after that is clean (`strategies.Simulator`)."""

    def __init__(self, before: list[Any], draft: str, scenario: str, has_tools: bool) -> None:
        self.seen, self.scenario, self.has_tools, self.gate = before, scenario, has_tools, tuple(Flaw)
        self._draft, self.calls, self.sent_unverified = draft, 0, 0

    async def draft(self, kind: str = "draft", told: Any = (), order: str = "", read: Any = None) -> Any:
        self.calls += 1
        text = f"Response: {CLEAN}" if kind == "reflection" else CLEAN if told else self._draft
        return tau2_compat.load().UserMessage(role="user", content=text)

    async def judge(self, prompt: list[dict[str, Any]]) -> str:
        self.calls += 1
        return "true" if prompt[-1]["content"].split("# Draft\nCustomer: ")[1].startswith(CLEAN) else "false"

    def unverified(self) -> None:
        self.sent_unverified += 1


CLEAN = "All right, please go on."


async def strategies() -> dict[str, tuple[dict[str, tuple[int, int]], float]]:
    """Strategy -> flaw -> (flawed messages, those that were sent all the same); and the calls for one message."""
    t = tau2_compat.load()
    data = json.loads(LABELLED.read_text(encoding="utf-8"))
    out = {}
    for name in ("llm", "rules", "verify", "reflection"):
        counts: dict[str, tuple[int, int]] = {}
        calls = messages = 0
        for conversation in data["conversations"]:
            turns = [Turn(*turn) for turn in conversation["turns"]]
            last = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=None)
            if last is None or turns[last].calls or not turns[last].text.strip():
                continue
            made = {"agent": t.AssistantMessage, "user": t.UserMessage}
            roles = {"agent": "assistant", "user": "user"}
            before = [
                made[turn.role](role=roles[turn.role], content=turn.text) for turn in turns[:last] if turn.role in made
            ]
            user = Faulty(before, turns[last].text, data["scenarios"][conversation["scenario"]], conversation["tools"])
            if not conversation["labels"]:  # what is clean is approved of
                user.judge = _approve(user)  # type: ignore[method-assign]
            sent = (await STRATEGIES[name](user)).content
            calls, messages = calls + user.calls, messages + 1
            for label in conversation["labels"]:
                written, kept = counts.get(label, (0, 0))
                counts[label] = written + 1, kept + (sent == turns[last].text)
        out[name] = counts, calls / messages
    return out


def _approve(user: Faulty) -> Any:
    async def judge(prompt: list[dict[str, Any]]) -> str:
        user.calls += 1
        return "true"

    return judge


def print_strategies() -> None:
    found = asyncio.run(strategies())
    labels = sorted(found["llm"][0])
    print("\nFlawed messages that are sent all the same, and calls for one message:\n")
    print(f"| flaw | {' | '.join(found)} |\n| --- |{' --- |' * len(found)}")
    for label in labels:
        shares = " | ".join(f"{counts[label][1]} of {counts[label][0]}" for counts, _ in found.values())
        print(f"| `{label}` | {shares} |")
    print(f"| calls | {' | '.join(f'{calls:.2f}' for _, calls in found.values())} |")


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
    print_strategies()


if __name__ == "__main__":
    main()
