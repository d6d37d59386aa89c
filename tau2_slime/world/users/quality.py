"""How well a simulator played its part: what it did that no customer would, found without asking a model.

Pure functions over a conversation and its scenario, in time that grows with the length of the texts and no faster: they run
on the event loop. Each check looks at the words alone. It would rather miss a flaw than report one that is not there.
`benchmarks/simulator_quality.py` prints the precision and recall of each check on the labelled
set.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from tau2_slime.outcome import Flaw

if TYPE_CHECKING:
    from tau2_slime.world.types import Message


MAX_CHARACTERS = 100_000
"""Of a message that are looked at; the rest is not."""


@dataclass(frozen=True)
class Turn:
    """One message."""

    role: str
    """agent, user, or tool (a result that the user saw)."""
    text: str = ""
    calls: int = 0
    """Tool calls in it."""

    @cached_property
    def words(self) -> list[str]:
        return _words(self.text)

    @cached_property
    def squeezed(self) -> str:
        return _squeeze(self.text)


@dataclass(frozen=True)
class Finding:
    flaw: Flaw
    position: int
    """Of the user's message among the turns."""
    words: str
    """What gave it away."""


def examine(turns: Sequence[Turn], scenario: str, *, has_tools: bool, given: int = 0) -> list[Finding]:
    """Every flaw of the user's messages, in order; at most one of a kind for a message.

    ``given``: so many turns at the beginning are the task's own, not the simulator's.
    """
    found: list[Finding] = []
    for position, turn in enumerate(turns):
        if turn.role == "user" and position >= given:
            found += examine_last(turns[: position + 1], scenario, has_tools=has_tools, given=given)
    return found


def examine_last(turns: Sequence[Turn], scenario: str, *, has_tools: bool, given: int = 0) -> list[Finding]:
    """The flaws of the last message, which is the user's. ``given``: as for `examine`."""
    message = _UserMessage(turns[-1], turns[:-1], scenario, has_tools, given)
    checks = _CHECKS if message.turn.text else _WITHOUT_TEXT
    words = ((flaw, check(message)) for flaw, check in checks.items())
    return [Finding(flaw, len(turns) - 1, text) for flaw, text in words if text is not None]


def turns_of(messages: Iterable[Message]) -> list[Turn]:
    """τ²'s messages as the user sees them: without the agent's own tool calls and their results."""
    out = []
    for message in messages:
        text, calls = (message.content or "")[:MAX_CHARACTERS], len(getattr(message, "tool_calls", None) or ())
        if message.role == "user":
            out.append(Turn("user", text, calls))
        elif message.role == "assistant" and text:
            out.append(Turn("agent", text))
        elif message.role == "tool" and message.requestor == "user":
            out.append(Turn("tool", text))
    return out


@dataclass(frozen=True)
class _UserMessage:
    """A user's message, and what it is judged by."""

    turn: Turn
    before: Sequence[Turn]
    scenario: str
    has_tools: bool
    given: int
    """So many turns at the beginning are the task's own."""


# ---- each flaw -----------------------------------------------------------------------------------------------------------

_STOP = "###STOP###"
_ASKS = re.compile(
    r"\b(shall|should|may|can) i (now )?(proceed|go ahead|process|cancel|book|make|submit|place|update|change|return|"
    r"exchange|issue|apply|refuel|send)"
    r"|\b(would|do) you (like|want|wish) (me )?to (proceed|go ahead|continue|confirm|process|cancel|book|make|submit|place"
    r"|update|change|return|exchange|issue|apply)"
    r"|\b(please|can you|could you|do you) (please )?(explicitly )?confirm\b|\(yes/no\)|\breply (with )?.?yes\b"
    r"|\bis (that|this|it) (okay|ok|all right|alright|correct)\b|\bokay to proceed\b|\byour (explicit )?confirmation\b",
    re.I,
)
_NO_ACTION = re.compile(
    r"\b(anything|something) else\b|\b(works?|working|restored|resolved|fixed|see|shows?|improved)\b", re.I
)
_DECLINES = re.compile(
    r"\b(no|not|don'?t|won'?t|never ?mind|cancel that|changed my mind|rather|instead|decline|leave it|skip)\b", re.I
)


def _premature_stop(message: _UserMessage) -> str | None:
    turn, before = message.turn, message.before
    if _STOP not in turn.text or turn.calls or not before or before[-1].role != "agent":
        return None
    sentences = re.split(r"(?<=[.!?\n])\s*", before[-1].text)
    asked = [s for s in sentences if _ASKS.search(s) and not _NO_ACTION.search(s)]
    return None if not asked or _DECLINES.search(turn.text) else asked[-1].strip()


_DATA = r"(full name|name|user id|e-?mail|order (number|id)|zip|phone number|date of birth|account|confirmation|reservation)"
_AGENT_SPEECH = re.compile(
    r"\bhow (can|may|could) (i|we) (help|assist|be of)|\b(happy|glad|here) to (help|assist) you\b"
    r"|\banything else (that )?(i|we) (can|could|may) (help|assist|do for you)"
    rf"|\b(provide|give|tell|share|verify|confirm) (me )?(with )?your {_DATA}"
    rf"|\b(look|pull|bring)(ing)? up your {_DATA}|\b(what('s| is)|may i have|i('ll| will)? need) your {_DATA}"
    r"|\bi('ve| have)? (now )?(successfully )?(processed|cancell?ed|refunded|issued|updated|booked|upgraded|exchanged) "
    r"(your|the refund|a refund)\b"
    r"|\byour (refund|reservation|order|account|booking|request|flight) (has been|is being|was|will be) "
    r"(processed|cancell?ed|refunded|issued|updated|booked|exchanged)"
    r"|\bthank(s| you) for (contacting|calling|reaching out)|\bas (a|your) (customer (service|support)|support|service) "
    r"(agent|representative)|\btransfer(ring)? you to\b",
    re.I,
)


def _role_flip(message: _UserMessage) -> str | None:
    turn = message.turn
    found = _AGENT_SPEECH.search(_unquoted(turn.text))
    return found.group(0) if found else None


_SPELLED = re.compile(r"<tool_call>|<function=")
_SPELLED_NAME = re.compile(r"\{\s*\"(name|function|tool)\"\s*:")
_SPELLED_ARGUMENTS = re.compile(r"\"(arguments|parameters|args)\"\s*:")


def _tool_call(message: _UserMessage) -> str | None:
    turn = message.turn
    if message.has_tools:
        return None
    if turn.calls:
        return f"{turn.calls} calls"
    found = _SPELLED.search(turn.text)
    if found:
        return found.group(0)
    named = _SPELLED_NAME.search(turn.text)
    return named.group(0)[:60] if named and _SPELLED_ARGUMENTS.search(turn.text, named.end()) else None


_HEADING = re.compile(
    r"</?scenario>|\b(task instructions|known info|unknown info|reason for call|user simulation guidelines) ?:"
    r"|\b(my|the) (scenario|instructions) (say|says|state|states|tell|tells|do not|don't|does not|doesn't|provide)"
    r"|\bscenario instructions?\b",
    re.I,
)
_GUIDELINES = (
    "You are playing the role of a customer contacting a customer service representative. Your goal is to simulate "
    "realistic customer interactions while following specific scenario instructions. Generate one message at a time, "
    "maintaining natural conversation flow. Strictly follow the scenario instructions you have received. Never make up or "
    "hallucinate information not provided in the scenario instructions. Disclose information progressively. Wait for the "
    "agent to ask for specific information before providing it."
)
_TO_THE_SIMULATOR = {"you", "your", "you're", "you'd", "you'll", "you've", "yourself"}


def _leak(message: _UserMessage) -> str | None:
    turn = message.turn
    heading = _HEADING.search(turn.text)
    if heading:
        return heading.group(0)
    for length, source in ((6, _orders(message.scenario)), (8, _orders_to_all())):
        for run in _runs(turn.words, length):
            if run in source:
                return " ".join(run)
    return None


@lru_cache(maxsize=256)
def _orders(scenario: str) -> frozenset[tuple[str, ...]]:
    return frozenset(run for run in _runs(_words(scenario), 6) if _is_order(run))


@cache
def _orders_to_all() -> frozenset[tuple[str, ...]]:
    return frozenset(_runs(_words(_GUIDELINES), 8))


def _is_order(run: tuple[str, ...]) -> bool:
    if _TO_THE_SIMULATOR & set(run):
        return True
    return any(pair in (("the", "agent"), ("service", "agent")) for pair in pairwise(run))


def _empty(message: _UserMessage) -> str | None:
    return None if message.turn.text.strip() or message.turn.calls else "nothing"


def _repeat(message: _UserMessage) -> str | None:
    turn, before = message.turn, message.before
    words = turn.words
    if len(words) < 5:
        return None
    asked = _asked(before)
    for position, earlier in enumerate(before):
        if earlier.role == "user" and earlier.words == words and _asked(before[:position]) != asked:
            return turn.text.strip()[:60]
    return None


def _asked(before: Sequence[Turn]) -> list[str]:
    """The words that the user answers."""
    return next((turn.words for turn in reversed(before) if turn.role != "user"), [])


_FACT = re.compile(
    r"(?<![\w.+-])[\w.+-]++@[\w-]++\.[\w.]*\w"  # an e-mail address; no letter in the middle of a word begins one
    r"|\$\s?\d[\d,]*(?:\.\d+)?"  # an amount of money
    r"|\+?\(?\d[\d\s().-]{5,}\d"  # a telephone or card number
    r"|#?\b(?=\w*\d)(?=\w*[A-Za-z_])\w{5,}\b"  # an id
    r"|\b\d{4,}\b"
)
_MY_NAME = re.compile(r"\b[Mm]y (?:full |first |last )?name(?: is|'s) ([A-Z][\w'-]+(?: [A-Z][\w'-]+)?)")
_ORDINARY = re.compile(r"^(\d+(st|nd|rd|th|gb|mb|mbps|am|pm|hrs?|min|days?|s|x|k|inch)|(19|20)\d\d(s)?)$", re.I)


def _invented(message: _UserMessage) -> str | None:
    turn = message.turn
    heard = [t for position, t in enumerate(message.before) if t.role != "user" or position < message.given]
    facts = dict.fromkeys(match.group(0) for match in _FACT.finditer(turn.text))
    for fact in itertools.islice(facts, _MOST_FACTS):
        squeezed = _squeeze(fact)
        known = itertools.chain([_squeezed_scenario(message.scenario)], (t.squeezed for t in heard))
        if not _ORDINARY.match(fact) and not any(squeezed in text for text in known):
            return fact
    names = [match.group(1) for match in _MY_NAME.finditer(turn.text)]
    if names:
        words = set(_words(message.scenario)).union(*(t.words for t in heard))
        return next((name for name in names if not set(_words(name)) <= words), None)
    return None


_MOST_FACTS = 500
"""Facts of one message that are compared with what the user knows."""


@lru_cache(maxsize=256)
def _squeezed_scenario(scenario: str) -> str:
    return _squeeze(scenario)


_CHECKS: dict[Flaw, Callable[[_UserMessage], str | None]] = {
    Flaw.PREMATURE_STOP: _premature_stop,
    Flaw.ROLE_FLIP: _role_flip,
    Flaw.TOOL_CALL: _tool_call,
    Flaw.LEAK: _leak,
    Flaw.EMPTY: _empty,
    Flaw.REPEAT: _repeat,
    Flaw.INVENTED: _invented,
}
_WITHOUT_TEXT = {flaw: _CHECKS[flaw] for flaw in (Flaw.TOOL_CALL, Flaw.EMPTY)}
"""What a message without words can show: most of a user's messages in telecom are calls."""


# ---- words ---------------------------------------------------------------------------------------------------------------


def _words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower().replace("’", "'"))


def _runs(words: Sequence[str], length: int) -> Iterable[tuple[str, ...]]:
    return (tuple(words[i : i + length]) for i in range(len(words) - length + 1))


def _squeeze(text: str) -> str:
    """Letters and digits alone, so that 555-0123 is (555) 0123; ``.00`` is dropped from an amount of money."""
    return re.sub(r"[^a-z0-9@]", "", re.sub(r"(\d)\.00\b", r"\1", text.lower()))


def _unquoted(text: str) -> str:
    """``text`` without quotations: what the user says, not what it reports that somebody said."""
    return re.sub(r"[\"“][^\"“”]*[\"”]|(?<!\w)'[^']{8,}'(?!\w)", " ", text)
