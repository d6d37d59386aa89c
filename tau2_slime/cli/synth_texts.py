"""`tau2-slime synth --llm`: the models of the texts, their budget, and what is said about their work."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tau2_slime.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from tau2_slime.chat.completion import Completion
    from tau2_slime.evaluation.runner.budget import Budget
    from tau2_slime.synth.gates.held_out import HoldOut
    from tau2_slime.synth.writing.answers import WriterSpec


@dataclass(frozen=True)
class Texts:
    """What the command line says about the models."""

    writer: str
    reader: str
    base_url: str | None
    api_key_var: str | None
    max_cost: float | None
    prices: tuple[str, ...]
    concurrency: int

    def check(self) -> None:
        """Raises ConfigError before anything is made: a key that is not set, a price that is not known."""
        for model in (self.writer, self.reader):
            self._spec(model, 0.0).connection()
        self._budget(None)

    def write(
        self, rows: Sequence[dict[str, Any]], folder: Path, hold_out: HoldOut, console: Console
    ) -> tuple[list[dict[str, Any]], str | None]:
        """The events with their texts, and why the writing stopped early, if it did.

        Raises:
            ConfigError: the endpoint refuses the key or the model.
        """
        import asyncio

        from tau2_slime.evaluation.runner.budget import EpisodePayer
        from tau2_slime.runtime.console import progress
        from tau2_slime.synth.generate import WORDINGS
        from tau2_slime.synth.writing.answers import PaidAnswers
        from tau2_slime.synth.writing.writer import Writer
        from tau2_slime.world.billing import PAYER

        budget = self._budget(folder / "costs.jsonl")

        def dollars(model: str, answer: Completion) -> float:
            each = budget.price(model, own=self.base_url is not None) or (0.0, 0.0)
            return answer.usage.prompt_tokens * each[0] + answer.usage.completion_tokens * each[1]

        answers = PaidAnswers(folder / "answers.jsonl", dollars)
        # The writer's samples differ, and the reader's three votes are three opinions.
        writer = Writer(answers, self._spec(self.writer, 1.0), self._spec(self.reader, 0.7), WORDINGS, hold_out)
        PAYER.set(EpisodePayer(budget))
        with progress("texts", console) as advance:
            written, stopped = asyncio.run(
                writer.write_all(
                    rows, lambda done, total, cost: advance(done, total, f"({cost:.2f} dollars)" if cost else "")
                )
            )
        if isinstance(stopped, ConfigError):
            raise stopped
        sources = Counter(row["writer"]["text"] for row in written if "writer" in row)
        console.print(
            f"texts: {sources['model']} by {self.writer}, {sources['template']} from templates; "
            f"{budget.spent:.4f} dollars",
            markup=False,
            soft_wrap=True,
        )
        return written, None if stopped is None else str(stopped)

    def _spec(self, model: str, temperature: float) -> WriterSpec:
        from tau2_slime.synth.writing.answers import WriterSpec

        return WriterSpec(
            model,
            base_url=self.base_url,
            api_key_var=self.api_key_var,
            args={"temperature": temperature},
            concurrency=self.concurrency,
        )

    def _budget(self, path: Path | None) -> Budget:
        from tau2_slime.evaluation.runner.budget import Budget, parse_prices

        budget = Budget(path, self.max_cost, parse_prices(self.prices))
        budget.require_prices([(model, self.base_url is not None) for model in (self.writer, self.reader)])
        return budget
