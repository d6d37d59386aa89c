"""What an evaluation costs: every paid call is a line of a ledger file, and no call is made that could pass the limit.

A call is made if the money spent, what calls in flight may cost, and what this call may cost stay within the limit together.
What a call may cost is estimated from above: three characters a token, and as many reply tokens as ``max_tokens`` allows
(without it: twice the longest reply so far, at least 1,024).

The calls of a user simulator of one's own are seen only if `world.users.LitellmUser` makes them. What else it reports in its
`UserStats` is counted once an episode is over.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tau2_slime.episode.result import EpisodeStats
from tau2_slime.errors import ConfigError, EpisodeAborted
from tau2_slime.runtime.files import append_line
from tau2_slime.world.litellm_client import load_litellm
from tau2_slime.world.users.spending import usage_of

Price = tuple[float, float]
"""US dollars per prompt token and per reply token."""

_CHARACTERS_PER_TOKEN = 3
_LEAST_REPLY = 1024


@dataclass
class Bill:
    """What one model cost in one role. Money is in US dollars."""

    calls: int = 0
    failed: int = 0
    """Calls without an answer."""
    prompt_tokens: int = 0
    reply_tokens: int = 0
    cost: float = 0.0
    unpriced: int = 0
    """Calls without a known price; they count as 0."""
    assumed: float = 0.0
    """Part of `cost` that is an estimate, for calls whose answer never came: the provider may have billed them."""


class Ticket(NamedTuple):
    """A call that was let through."""

    role: str
    """``policy`` or ``user``."""
    model: str
    reserved: float
    """US dollars set aside for it."""
    own: bool
    """The endpoint is the user's own: without a known price it is free."""


class Budget:
    """The ledger of a run, over all of its sessions. Amounts are US dollars."""

    def __init__(
        self, path: Path | None, limit: float | None = None, prices: Mapping[str, Price] | None = None
    ) -> None:
        """``path``: the ledger file, read if it is there; None keeps nothing on disk. ``limit``: US dollars.

        Raises:
            ConfigError: the file is there but cannot be read.
        """
        self.limit, self.prices = limit, dict(prices or {})
        self.bills: dict[tuple[str, str], Bill] = {}
        self.reached = False
        """A call was refused: the next one could have passed the limit."""
        self.damaged = 0
        """Lines of the ledger that cannot be read."""
        self._reserved = 0.0
        self._longest: dict[str, int] = {}
        self._path = path
        self._cut = False
        self._pending: list[str] = []
        self._problem = ""
        if path is not None and path.exists():
            self._read(path)

    @property
    def spent(self) -> float:
        return sum(bill.cost for bill in self.bills.values())

    @property
    def used_up(self) -> bool:
        """The limit is reached. A run of which nothing cost anything never uses it up."""
        return self.limit is not None and 0 < self.spent >= self.limit

    @property
    def unwritten(self) -> str:
        """Why the ledger lacks calls that were made; empty if it has them all."""
        if not self._pending:
            return ""
        calls = "1 call" if len(self._pending) == 1 else f"{len(self._pending)} calls"
        return f"{self._path} cannot be written: {self._problem}; it lacks the costs of {calls}"

    @property
    def notes(self) -> list[str]:
        """What a user must know of damage, in sentences."""
        if not self.damaged:
            return []
        one = "1 line is damaged: the cost of that call is"
        several = f"{self.damaged} lines are damaged: the costs of those calls are"
        return [f"{self._path}: {one if self.damaged == 1 else several} missing from the total"]

    def reserve(
        self, role: str, model: str, prompt: Sequence[Mapping[str, Any]], args: Mapping[str, Any], *, own: bool
    ) -> Ticket:
        """Set aside the most that this call may cost. ``args``: its litellm arguments.

        Raises:
            EpisodeAborted: the limit could be passed, or what was paid before cannot be written down.
        """
        if self._pending:
            raise EpisodeAborted(self.unwritten)
        if self.limit is None:
            return Ticket(role, model, 0.0, own)
        price = self.price(model, own=own) or (0.0, 0.0)
        tokens = len(json.dumps(prompt, default=str)) / _CHARACTERS_PER_TOKEN
        cap = args.get("max_tokens") or args.get("max_completion_tokens")
        reply = cap or max(_LEAST_REPLY, 2 * self._longest.get(model, 0))
        estimate = tokens * price[0] + reply * price[1]
        if self.spent + self._reserved + estimate > self.limit:
            self.reached = True
            raise EpisodeAborted("the budget is used up")
        self._reserved += estimate
        return Ticket(role, model, estimate, own)

    def settle(self, ticket: Ticket, response: object | None, *, unknown: bool = False) -> float:
        """Replace a reservation by the bill, and return what the call cost.

        ``response``: litellm's; None: the call failed. ``unknown``: whether the failed call is billed is not known.
        """
        self._reserved -= ticket.reserved
        line: dict[str, Any] = {"role": ticket.role, "model": ticket.model, "cost": 0.0}
        if response is None:
            assumed = unknown and ticket.reserved
            line |= {"failed": True, **({"cost": ticket.reserved, "assumed": True} if assumed else {})}
        else:
            line["prompt_tokens"], line["reply_tokens"] = usage_of(response)
            line |= self._priced(line, ticket.model, own=ticket.own)
        return self._book(line)

    def settle_reported(self, model: str, reported: Bill, *, own: bool) -> float:
        """Book a user's calls that were not reserved, and return what they cost: by their tokens if no cost is reported."""
        line: dict[str, Any] = {"role": "user", "model": model, "calls": reported.calls, "cost": reported.cost}
        line |= {"prompt_tokens": reported.prompt_tokens, "reply_tokens": reported.reply_tokens}
        if not reported.cost:
            line |= self._priced(line, model, own=own)
        return self._book(line)

    def _priced(self, line: Mapping[str, Any], model: str, *, own: bool) -> dict[str, Any]:
        price = self.price(model, own=own)
        if price is None:
            return {"unpriced": True}
        return {"cost": line["prompt_tokens"] * price[0] + line["reply_tokens"] * price[1]}

    def _book(self, line: Mapping[str, Any]) -> float:
        self._count(line)
        if self._path is not None:
            self._pending.append(("\n" if self._cut else "") + json.dumps(line))
            self._cut = False
            try:
                while self._pending:
                    append_line(self._path, self._pending[0], synced=False)
                    self._pending.pop(0)
            except OSError as error:  # the money is spent and counted; the run ends, and no episode fails for it
                self._problem = error.strerror or str(error)
        return float(line["cost"])

    def price(self, model: str, *, own: bool) -> Price | None:
        """The given price, else litellm's, else (0, 0) for an endpoint of the user's own; None if nothing is known."""
        if model in self.prices:
            return self.prices[model]
        known = litellm_price(model)
        return known if known is not None else (0.0, 0.0) if own else None

    def require_prices(self, models: Iterable[tuple[str, bool]]) -> None:
        """With a limit every model (name, own endpoint) must have a price.

        Raises:
            ConfigError: naming the model and the option.
        """
        if self.limit is None:
            return
        for model, own in models:
            if self.price(model, own=own) is None:
                raise ConfigError(
                    f"--max-cost needs a price for {model}, which litellm does not know: give --price "
                    f"{model}=IN,OUT in US dollars per million prompt and reply tokens"
                )

    def _count(self, line: Mapping[str, Any]) -> None:
        bill = self.bills.setdefault((str(line["role"]), str(line["model"])), Bill())
        bill.calls += int(line.get("calls", 1))
        bill.failed += bool(line.get("failed"))
        bill.prompt_tokens += int(line.get("prompt_tokens", 0))
        bill.reply_tokens += int(line.get("reply_tokens", 0))
        bill.cost += float(line["cost"])
        bill.unpriced += max(1, int(line.get("calls", 1))) if line.get("unpriced") else 0
        bill.assumed += float(line["cost"]) if line.get("assumed") else 0.0
        model = str(line["model"])
        self._longest[model] = max(self._longest.get(model, 0), int(line.get("reply_tokens", 0)))

    def _read(self, path: Path) -> None:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{path} cannot be read ({error.strerror}): it holds what the run has cost") from None
        self._cut = bool(content) and not content.endswith(b"\n")
        for raw in filter(bytes.strip, content.split(b"\n")):
            try:
                line = json.loads(raw)
                numbers = [line["cost"], *(line.get(name, 0) for name in ("calls", "prompt_tokens", "reply_tokens"))]
                if not all(isinstance(number, int | float) for number in numbers):
                    raise TypeError
                line["role"], line["model"]
            except (ValueError, KeyError, TypeError, AttributeError):
                self.damaged += 1
                continue
            self._count(line)


class EpisodePayer:
    """One episode's `world.billing.Payer`: it reserves and settles with the run's budget, and adds up the episode's cost."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.cost: dict[str, float] = {"policy": 0.0, "user": 0.0}
        """US dollars by role."""
        self._user = Bill()

    def before(self, role: str, model: str, prompt: list[dict[str, Any]], args: dict[str, Any], *, own: bool) -> Ticket:
        return self._budget.reserve(role, model, prompt, args, own=own)

    def after(self, ticket: Ticket, response: object | None, *, unknown: bool = False) -> None:
        cost = self._budget.settle(ticket, response, unknown=unknown)
        self.cost[ticket.role] = self.cost.get(ticket.role, 0.0) + cost
        if ticket.role == "user":
            prompt, reply = usage_of(response)
            self._user.calls += 1
            self._user.prompt_tokens += prompt
            self._user.reply_tokens += reply
            self._user.cost += getattr(response, "cost", 0.0)  # as its `UserStats` have it, whatever its price is here

    def add_reported(self, model: str, stats: EpisodeStats, *, own: bool) -> None:
        """Book what a user simulator of one's own reports beyond the calls that were seen."""
        seen = self._user
        more = Bill(
            calls=max(0, stats.user_calls - seen.calls),
            prompt_tokens=max(0, stats.user_prompt_tokens - seen.prompt_tokens),
            reply_tokens=max(0, stats.user_completion_tokens - seen.reply_tokens),
            cost=max(0.0, stats.user_cost - seen.cost),
        )
        # Where all calls were seen, another cost is another price for them.
        if more.calls or more.prompt_tokens or more.reply_tokens or (more.cost and not seen.calls):
            self.cost["user"] += self._budget.settle_reported(model, more, own=own)


def litellm_price(model: str) -> Price | None:
    """The highest price that litellm's table has for ``model``: with some, long prompts cost more per token."""
    try:
        known = load_litellm().cost_per_token(model=model, prompt_tokens=1_000_000, completion_tokens=1_000_000)
    except Exception:  # litellm raises a bare Exception for models that it has no price of
        return None
    return known[0] / 1e6, known[1] / 1e6


def parse_prices(given: Iterable[str]) -> dict[str, Price]:
    """Prices per token from texts ``MODEL=IN,OUT`` in US dollars per million tokens.

    >>> parse_prices(["openai/gpt-x=2,8"])
    {'openai/gpt-x': (2e-06, 8e-06)}

    Raises:
        ConfigError: a text has another form.
    """
    out = {}
    for text in given:
        model, _, numbers = text.rpartition("=")
        try:
            prompt, reply = (float(number) / 1e6 for number in numbers.split(","))
            if not model or prompt < 0 or reply < 0:
                raise ValueError
        except ValueError:
            raise ConfigError(
                f"--price {text!r}: write MODEL=IN,OUT in US dollars per million tokens, such as openai/gpt-x=0.25,2"
            ) from None
        out[model] = (prompt, reply)
    return out
