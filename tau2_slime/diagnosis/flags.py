"""What a reader should know about an episode beside the cause of its failure: found in successes too, and never a cause."""

from __future__ import annotations

from tau2_slime.diagnosis.agent_side import consent
from tau2_slime.diagnosis.case import Case
from tau2_slime.diagnosis.findings import Evidence, Finding, What, Who, as_text
from tau2_slime.diagnosis.story import Story
from tau2_slime.outcome import Flaw
from tau2_slime.world.users import quality
from tau2_slime.world.users.quality import MAX_CHARACTERS, Turn

FLAGS = (
    *("text_beside_call", "several_calls", "repeated_call", "repeated_error"),
    *("unconfirmed", "did_nothing", "unneeded_transfer"),
)
LABELS = tuple(dict.fromkeys(map(str, (*Who, *What, *FLAGS, *Flaw))))
"""Everything that a diagnosis can say of an episode: a side, a kind of failure, a flag."""


def flaws_of(case: Case) -> list[quality.Finding]:
    """What the user simulator did and no customer would; positions are indices of messages."""
    turns: list[Turn] = []
    places: list[int] = []
    for turn, message in enumerate(case.story.messages):
        role, text = message.get("role"), str(message.get("content") or "")[:MAX_CHARACTERS]
        calls = len(message.get("tool_calls") or ())
        if role == "user":
            turns.append(Turn("user", text, calls))
        elif role == "assistant" and text:
            turns.append(Turn("agent", text))
        elif role == "tool" and message.get("requestor") == "user":
            turns.append(Turn("tool", text))
        else:
            continue
        places.append(turn)
    begun = len(case.world.history)
    given = sum(place < begun for place in places)
    found = quality.examine(turns, case.scenario, has_tools=case.has_user_tools, given=given)
    return [quality.Finding(one.flaw, places[one.position], one.words) for one in found]


def flags_of(story: Story, case: Case | None, *, succeeded: bool) -> list[Finding]:
    """The flags of an episode, in the order of its messages for each kind."""
    found: list[Finding] = []
    for turn, message in enumerate(story.messages):
        calls = message.get("tool_calls") or []
        if message.get("role") != "assistant" or not calls:
            continue
        text = message.get("content")
        if isinstance(text, str) and text.strip():
            found.append(_flag(Who.AGENT, "text_beside_call", turn, text.strip()[:200]))
        if len(calls) > 1:
            found.append(_flag(Who.AGENT, "several_calls", turn))
    found += _repeated(story)
    if case is None:
        return found
    for call in case.made:
        if call.requestor == "assistant" and not case.has_user_tools and consent(case, call) is None:
            found.append(
                Finding(
                    Who.AGENT,
                    "unconfirmed",
                    call.turn,
                    (Evidence(call.turn, name=call.name, here=as_text(call.arguments)),),
                    0.7,
                )
            )
    for flaw in case.flaws:
        text = str(story.messages[flaw.position].get("content") or "")
        words = flaw.words if flaw.words in text else ""
        found.append(_flag(Who.USER, flaw.flaw.value, flaw.position, words))
    if succeeded and not case.made and not case.transfer:
        found.append(_flag(Who.AGENT, "did_nothing", None))
    if succeeded and case.transfer is not None and not case.gold.transfers:
        found.append(_flag(Who.AGENT, "unneeded_transfer", case.transfer.turn))
    return found


def _repeated(story: Story) -> list[Finding]:
    found, seen = [], dict[str, bool]()
    for call in story.calls:
        if call.requestor != "assistant":
            continue
        key = f"{call.name} {as_text(call.arguments)}"
        if key in seen:
            found.append(_flag(Who.AGENT, "repeated_error" if seen[key] and call.error else "repeated_call", call.turn))
        seen[key] = call.error
    return found


def _flag(who: Who, what: str, turn: int | None, words: str = "") -> Finding:
    evidence = (Evidence(turn, words),) if words and turn is not None else ()
    return Finding(who, what, turn, evidence, 0.7)
