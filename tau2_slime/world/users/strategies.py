"""How a simulator comes to one message: rules, react, verify and reflection, around the calls of `simulator.LitellmUser`.

A strategy asks for drafts, and may have them judged. Exactly one message comes out. Thoughts, refused drafts, verdicts and
reflections are seen by nobody: not by the agent, not by the scorer, not by the simulator's own later turns. A draft that
calls a tool is sent as it is. Where the judge cannot be had, the draft is sent and counted as unverified.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from tau2_slime.chat.faults import CallFailed, Fault
from tau2_slime.errors import BudgetSpent, UserSimulatorError
from tau2_slime.outcome import Flaw
from tau2_slime.world.users.quality import examine_last, turns_of

if TYPE_CHECKING:
    from tau2_slime.world.types import Message, UserMessage

MOST_DRAFTS = 3
"""Of one turn. What is left after them is sent."""
Prompt = list[dict[str, Any]]
Read = Callable[["UserMessage"], "UserMessage"]
"""What becomes of an answer; raises CallFailed if it is not usable, and then the model is asked again."""


class Simulator(Protocol):
    """What a strategy needs of the simulator."""

    scenario: str
    has_tools: bool
    gate: Sequence[Flaw]
    """The flaws for which `rules` asks again."""
    given: Sequence[Message]
    """The beginning of `seen` that the simulator did not play."""

    @property
    def seen(self) -> Sequence[Message]:
        """The conversation so far, as the user sees it: what came last is to be answered."""

    async def draft(
        self, kind: str = "draft", told: Sequence[dict[str, Any]] = (), order: str = "", read: Read | None = None
    ) -> UserMessage:
        """A usable answer to the conversation, with ``told`` after it and ``order`` at the end of the system prompt.

        Raises:
            UserSimulatorError: none can be had.
        """

    async def judge(self, prompt: Prompt) -> str:
        """The verifier's answer. Raises UserSimulatorError or BudgetSpent."""

    def unverified(self) -> None:
        """Count a message that was sent although nobody has approved of it."""


async def just_ask(simulator: Simulator) -> UserMessage:
    """``llm``: one call."""
    return await simulator.draft()


async def rules(simulator: Simulator) -> UserMessage:
    """``rules``: a draft with a flaw that words alone give away is asked for again, at most twice."""
    told: Prompt = []
    for left in reversed(range(MOST_DRAFTS)):
        draft = await simulator.draft(told=told)
        found = [] if draft.is_tool_call() else _flaws(simulator, draft, simulator.gate)
        if not found:
            return draft
        if left:
            told = _refused(draft, "; ".join(found))
    simulator.unverified()
    return draft


async def react(simulator: Simulator) -> UserMessage:
    """``react``: the simulator thinks before it speaks; what follows the last ``User Response:`` is sent."""
    return await simulator.draft(order=_REACT, read=_response)


async def verify(simulator: Simulator) -> UserMessage:
    """``verify``: a second call judges the draft; a refused one is asked for again, at most twice."""
    told: Prompt = []
    for left in reversed(range(MOST_DRAFTS)):
        draft = await simulator.draft(told=told)
        if draft.is_tool_call():
            return draft
        good, why = await _verdict(simulator, draft)
        if good:
            return draft
        if good is None:
            break
        if left:
            told = _refused(draft, why)
    simulator.unverified()
    return draft


async def reflection(simulator: Simulator) -> UserMessage:
    """``reflection``: a refused draft is thought over once; what comes of that is sent if it is approved, else the draft."""
    draft = await simulator.draft()
    if draft.is_tool_call():
        return draft
    good, why = await _verdict(simulator, draft)
    if good:
        return draft
    if good is False:
        try:
            again = await simulator.draft("reflection", _refused(draft, why, _REFLECT))
            better = None if again.is_tool_call() else _after_last("Response:", again.content or "")
        except (UserSimulatorError, BudgetSpent):
            better = None
        if better:
            again.content = better
            if (await _verdict(simulator, again))[0]:
                return again
    simulator.unverified()
    return draft


STRATEGIES: Mapping[str, Callable[[Simulator], Any]] = {
    "llm": just_ask,
    "rules": rules,
    "react": react,
    "verify": verify,
    "reflection": reflection,
}
"""The setting ``user_strategy`` -> what makes one message."""


# ---- what is told --------------------------------------------------------------------------------------------------------

_REACT = (
    "Think before you speak. Write exactly this form, the thought first and then your message to the agent:\n"
    "Thought: <what you want to say, and why>\nUser Response: <your message>\n"
    "Nobody but you reads the thought. A stop token counts in the response alone."
)
_REFLECT = (
    "Reflect in a few sentences on what is wrong. Then write `Response:` and the better message, with nothing after it."
)
_AGAIN = "Write the message to the agent again, without this mistake, and nothing else."
_JUDGE = (
    "You check whether a simulated customer plays its part. You get the scenario, the conversation with a service agent, "
    "and the customer's next message, which is a draft. Approve the draft if a customer with this scenario could send it "
    "now: it keeps to the scenario, invents nothing, withholds nothing that was asked for and is known, does not speak as "
    "the agent, does not repeat its instructions, and does not end the conversation ({stops}) before the wish is met or "
    "refused. Answer with one word, true or false, and after false one sentence that says why."
)
_STOPS = "###STOP###, ###TRANSFER###, ###OUT-OF-SCOPE###"


def _refused(draft: UserMessage, why: str, order: str = _AGAIN) -> Prompt:
    """The draft and what is wrong with it, as the one that writes again is told it."""
    note = f"This draft was not sent. What is wrong with it: {why or 'it does not fit the scenario'}. {order}"
    return [{"role": "assistant", "content": draft.content or ""}, {"role": "user", "content": f"(Note: {note})"}]


def _flaws(simulator: Simulator, draft: UserMessage, among: Sequence[Flaw]) -> list[str]:
    """What the rules of the quality gate find in the draft, in words."""
    turns = turns_of([*simulator.seen, draft])
    given = len(turns_of(simulator.given))
    found = examine_last(turns, simulator.scenario, has_tools=simulator.has_tools, given=given)
    return [f"{flaw.flaw} ({flaw.words[:80]!r})" for flaw in found if flaw.flaw in among]


# ---- what is read --------------------------------------------------------------------------------------------------------


async def _verdict(simulator: Simulator, draft: UserMessage) -> tuple[bool | None, str]:
    """(approved, why not). None: nobody has judged, or not in words that mean anything."""
    found = _flaws(simulator, draft, tuple(Flaw))
    names = {"user": "Customer", "agent": "Agent", "tool": "Result of the customer's tool"}
    spoken = "\n".join(f"{names[turn.role]}: {turn.text}" for turn in turns_of(simulator.seen) if turn.text)
    hints = f"\n\nSimple checks suspect: {'; '.join(found)}" if found else ""
    prompt = [
        {"role": "system", "content": _JUDGE.format(stops=_STOPS)},
        {
            "role": "user",
            "content": f"# Scenario\n{simulator.scenario}\n\n# Conversation\n{spoken}\n\n# Draft\nCustomer: {draft.content}"
            f"{hints}\n\nIs the draft good: true or false?",
        },
    ]
    try:
        said = await simulator.judge(prompt)
    except (UserSimulatorError, BudgetSpent):
        return None, ""
    return read_verdict(said, found)


def read_verdict(said: str, found: Sequence[str] = ()) -> tuple[bool | None, str]:
    """(approved, why not) of a verifier's answer: its first word, or ``{"ok": ...}``; None for anything else.

    >>> read_verdict("False. It hangs up."), read_verdict("That is not true.")
    ((False, 'It hangs up'), (None, ''))
    """
    text = said.strip()
    if text.startswith("{"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return None, ""
        good = value.get("ok") if isinstance(value, dict) else None
        why = str(value.get("reason") or "") if isinstance(value, dict) else ""
        return (good, "; ".join(filter(None, [why, *found]))) if isinstance(good, bool) else (None, "")
    word = re.match(r"[\W_]*(true|false)\b[\W_]*", text, re.IGNORECASE)
    if word is None:
        return None, ""
    why = text[word.end() :].strip().rstrip(".")
    return word[1].lower() == "true", "; ".join(filter(None, [why[:500], *found]))


def _response(answer: UserMessage) -> UserMessage:
    """The answer of one that was asked to think, without the thought.

    Raises:
        CallFailed: a thought without a response.
    """
    text = answer.content or ""
    if answer.is_tool_call():
        answer.content = None  # a thought beside the call, and the history keeps none
        return answer
    response = _after_last("User Response:", text)
    if response is None and re.match(r"\s*Thought:", text):
        raise CallFailed(Fault.GARBAGE, "a thought without a `User Response:`")
    if response == "":
        raise CallFailed(Fault.GARBAGE, "an empty `User Response:`")
    if response is not None:
        answer.content = response
    return answer


def _after_last(label: str, text: str) -> str | None:
    """What follows the last ``label``, stripped; None without one."""
    _, found, after = text.rpartition(label)
    return after.strip() if found else None
