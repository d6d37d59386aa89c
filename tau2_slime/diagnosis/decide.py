"""The order of decision: the first rule that holds is the cause, what else was found stands in ``also``."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tau2_slime.diagnosis import agent_side, order, user_side
from tau2_slime.diagnosis.case import Case
from tau2_slime.diagnosis.endings import ending
from tau2_slime.diagnosis.findings import Diagnosis, Evidence, Finding, Key, What, Who, as_text
from tau2_slime.diagnosis.flags import flags_of, flaws_of
from tau2_slime.diagnosis.matching import same_record
from tau2_slime.diagnosis.replay import gold_play, play
from tau2_slime.diagnosis.story import Story, read_story
from tau2_slime.inspector.database_diff import task_of
from tau2_slime.inspector.trajectory import Trajectory
from tau2_slime.outcome import SUCCESS

if TYPE_CHECKING:
    from tau2_slime.world.types import Task


def diagnose(trajectory: Trajectory, run: str = "") -> Diagnosis:
    """Who is at fault for one episode, what happened, where, by which words. Never raises; without a key or a network.

    ``run``: the name of the file or folder that it was read from.
    """
    out = Diagnosis(
        key_of(trajectory, run),
        trajectory.reward if trajectory.reward is not None and math.isfinite(trajectory.reward) else None,
        Finding(Who.NONE, What.NONE, None, (), 1.0),
        user_model=trajectory.user_model,
        episode=trajectory.name,
        split=trajectory.task_split,
    )
    story = read_story(trajectory)
    succeeded = trajectory.counted_reward is not None and trajectory.counted_reward >= SUCCESS
    ended = None if succeeded else ending(trajectory, story)
    case: Case | None = None
    note = ""
    if trajectory.messages and (ended is None or ended.who is not Who.INFRASTRUCTURE):
        try:
            case = case_of(trajectory, story)
        except ImportError as error:
            note = f"τ² is not installed ({error})"
        except Exception as error:  # another τ², other tasks, a state that contradicts itself: the rest still holds
            note = f"not replayed: {type(error).__name__}: {error}"
    flags = flags_of(story, case, succeeded=succeeded)
    if succeeded:
        out.also = flags
        return out
    causes = [ended] if ended is not None else []
    if case is not None and (ended is None or ended.who is Who.AGENT):
        causes += _causes(case)
    elif not causes:
        words = (Evidence(None, name="note", here=note or "the file keeps no messages"),)
        causes = [Finding(Who.AGENT, What.OTHER, max(story.last, 0), words, 0.2)]
    out.finding = causes[0]
    seen = {(out.finding.what, out.finding.turn)}
    for each in [*causes[1:], *flags]:
        if (each.what, each.turn) not in seen:
            seen.add((each.what, each.turn))
            out.also.append(each)
    return out


_TRIAL = re.compile(r"#(\d+)(?:@\d+)?$")


def key_of(trajectory: Trajectory, run: str) -> Key:
    """Names the episode: task ids repeat between domains and attempts."""
    found = _TRIAL.search(trajectory.name)
    trial = found.group(1) if found else trajectory.name
    return Key(run, trajectory.domain, trajectory.task_id, trial, trajectory.dataset)


def run_name(path: Path) -> str:
    """Stem of a file, or a folder's name."""
    resolved = path.resolve()
    return resolved.name if resolved.is_dir() else resolved.stem


def case_of(trajectory: Trajectory, story: Story) -> Case:
    """The episode beside its gold.

    Raises:
        Exception: what τ² raises for a task or domain that it does not know, or a state that cannot be set.
    """
    domain = trajectory.domain
    task, split = task_of(trajectory)
    known, unknown = told_to_user(task)
    gold = gold_play(domain, split, task, " ".join(filter(None, (known, unknown))))
    case = Case(trajectory, story, gold, play(story, gold, domain, split), domain, split, known, unknown)
    case.flaws = flaws_of(case)
    return case


def told_to_user(task: Task) -> tuple[str, str]:
    """What the scenario gives the user to say, and what it must not know."""
    instructions = task.user_scenario.instructions
    if isinstance(instructions, str):
        return instructions, ""
    given = (instructions.reason_for_call, instructions.known_info, instructions.task_instructions)
    return "\n".join(filter(None, given)), instructions.unknown_info or ""


def _causes(case: Case) -> list[Finding]:
    """Everything that went wrong between agent, user and task, the cause first."""
    found: list[Finding] = []
    if case.world_as_gold and not case.unsaid:
        found += _as_gold(case)
    found += [one for one in (order.order_dependent(case), gold_label(case)) if one is not None]
    divergent = [agent_side.divergent_write(case, call) for call in case.divergent]
    if not divergent:
        found += user_side.broke_off(case)
    said = agent_side.not_communicated(case)
    if said is not None and case.world_as_gold:  # then no order can have done harm
        found.append(said)
    too_early = order.wrong_order(case)
    if too_early is not None and not divergent:
        found.append(too_early)
    found += divergent
    if case.needed and not divergent:
        found += agent_side.left_undone(case)
    if said is not None and not case.world_as_gold:
        found.append(replace(said, sure=0.5))
    if divergent:
        found += user_side.broke_off(case)
    return found or [_other(case)]


def _as_gold(case: Case) -> list[Finding]:
    """The world is gold's and everything is said: what else the reward looks at."""
    if "ACTION" in case.gold.basis and case.gold.transfers and case.transfer is None:
        gold = Evidence(None, name="transfer_to_human_agents", here="(never made)", gold="transferred")
        return [
            Finding(Who.AGENT, What.MISSING_ACTION, case.story.closing(), (gold,), 0.8, tool="transfer_to_human_agents")
        ]
    return []


def _other(case: Case) -> Finding:
    evidence = [Evidence(None, name=path, here=here, gold=gold) for path, _, here, gold in case.played.differences[:3]]
    return Finding(Who.AGENT, What.OTHER, case.story.closing(), tuple(evidence), 0.2)


def gold_label(case: Case) -> Finding | None:
    """Gold breaks a rule of the policy, and the episode differs from gold in nothing else."""
    illegal = [write for write in case.gold.writes if write.violations]
    if not illegal or not case.counts_database:
        return None
    allowed = list(illegal)
    for write in case.needed:
        if write not in illegal:
            return None
    if not any(write in illegal for write in case.missing):
        return None
    for call in case.divergent:
        stands_for = next(
            (w for w in allowed if w.name == call.name and same_record(call.arguments, w.arguments)), None
        )
        if call.violations or stands_for is None:
            return None
        allowed.remove(stands_for)
    write = next(write for write in illegal if write in case.missing)
    broken = write.violations[0]
    evidence = (
        Evidence(None, name=f"gold {write.name}", here=broken.why, gold=as_text(write.arguments)),
        Evidence(None, name="rule", here=f"{broken.rule.id}: {broken.rule.clause}"),
    )
    turn = next((call.turn for call in case.divergent), case.story.closing())
    return Finding(Who.TASK, What.GOLD_LABEL, turn, evidence, 0.8, tool=write.name, clause=case.clause(broken.pattern))
