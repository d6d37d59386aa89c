"""Failures that the ending alone decides: machines, a broken simulator, a limit, a turn that cannot be used."""

from __future__ import annotations

from collections import Counter

from tau2_slime.diagnosis.findings import Evidence, Finding, What, Who, as_text
from tau2_slime.diagnosis.story import Made, Story
from tau2_slime.diagnosis.words import quoted
from tau2_slime.inspector.trajectory import Trajectory
from tau2_slime.outcome import Blame, Termination

_LENGTHS = (Termination.RESPONSE_LENGTH, Termination.CONTEXT_LENGTH)
_STEPS = (Termination.MAX_STEPS, Termination.MAX_TURNS)
_NORMAL = (Termination.AGENT_STOP, Termination.USER_STOP)


def ending(trajectory: Trajectory, story: Story) -> Finding | None:
    """What the ending of a failed episode says about its cause; None for a normal end."""
    how = trajectory.termination
    last = max(story.last, 0)
    if how == Termination.USER_ERROR:
        return Finding(Who.USER, What.SIMULATOR_FAILURE, last, _words(trajectory, story), 0.95)
    if how in _LENGTHS:
        return Finding(Who.AGENT, What.LENGTH_LIMIT, last, _words(trajectory, story), 0.95)
    if how == Termination.AGENT_ERROR:
        return Finding(Who.AGENT, What.MALFORMED_CALL, last, _words(trajectory, story), 0.95)
    if how == Termination.TOO_MANY_ERRORS:
        return _errors(story, last)
    if how in _STEPS:
        turn = _repetition(story)
        return Finding(Who.AGENT, What.STEP_LIMIT, last if turn is None else turn, _words(trajectory, story, turn), 0.9)
    if how in _NORMAL and trajectory.counted_reward is not None:
        return None
    if how in _NORMAL and trajectory.blame == Blame.USER:  # the user hung up at once: excluded, but not broken
        return None
    if how in _NORMAL and trajectory.blame != Blame.INFRASTRUCTURE and not trajectory.excluded:
        return None if trajectory.reward is not None else _machines(trajectory, "no reward was computed")
    if how == "" and trajectory.blame in ("", Blame.AGENT, Blame.LIMIT) and trajectory.counted_reward is not None:
        return None
    return _machines(trajectory, how or trajectory.status or "no reward")


def _machines(trajectory: Trajectory, how: str) -> Finding:
    evidence = [Evidence(None, name="termination", here=how)]
    if trajectory.detail:
        evidence.append(Evidence(None, name="detail", here=trajectory.detail))
    return Finding(Who.INFRASTRUCTURE, What.INFRASTRUCTURE, max(len(trajectory.messages) - 1, 0), tuple(evidence), 0.95)


def _words(trajectory: Trajectory, story: Story, turn: int | None = None) -> tuple[Evidence, ...]:
    found = [Evidence(None, name="termination", here=trajectory.termination)]
    if trajectory.detail:
        found.append(Evidence(None, name="detail", here=trajectory.detail))
    at = story.last if turn is None else turn
    text = story.messages[at].get("content") if 0 <= at < len(story.messages) else None
    if isinstance(text, str) and text.strip():
        found.append(Evidence(at, quoted(text)))
    return tuple(found)


def _errors(story: Story, last: int) -> Finding:
    """Too many errors are the fault of the side that made more of them."""
    failed = [call for call in story.calls if call.error or not call.reached]
    users = [call for call in failed if call.requestor == "user"]
    agents = [call for call in failed if call.requestor == "assistant"]
    side, who = (users, Who.USER) if len(users) > len(agents) else (agents, Who.AGENT)
    if not side:
        return Finding(who, What.ERROR_LIMIT, last, (), 0.7)
    unread = sum(not call.reached for call in side)
    what = What.MALFORMED_CALL if who is Who.AGENT and 2 * unread > len(side) else What.ERROR_LIMIT
    first = _streak(story, side)
    evidence = [Evidence(first.turn, name=first.name, here=as_text(first.arguments))]
    if first.result and first.result_turn is not None:
        evidence.append(Evidence(first.result_turn, first.result[:200]))
    return Finding(who, what, first.turn, tuple(evidence), 0.9, tool=first.name)


def _streak(story: Story, failed: list[Made]) -> Made:
    """The first error after the side's last call that succeeded."""
    requestor = failed[0].requestor
    good = [c.turn for c in story.calls if c.requestor == requestor and not c.error and c.reached]
    last_good = max(good, default=-1)
    return next((call for call in failed if call.turn > last_good), failed[0])


def _repetition(story: Story) -> int | None:
    """Where the agent says or does for the second time what it goes on repeating."""
    seen: dict[str, list[int]] = {}
    for turn, message in enumerate(story.messages):
        if message.get("role") != "assistant":
            continue
        calls = [(call.get("name"), call.get("arguments")) for call in message.get("tool_calls") or []]
        seen.setdefault(as_text([calls, None if calls else message.get("content")]), []).append(turn)
    counts = Counter({key: len(turns) for key, turns in seen.items()})
    if not counts:
        return None
    key, times = counts.most_common(1)[0]
    return seen[key][1] if times >= 3 else None
