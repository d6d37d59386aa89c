"""Gold plays of official tasks, played in the real τ² and scored by it, for labelled failures to be made of."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tau2_slime.diagnosis.replay import fresh_world, writes
from tau2_slime.inspector import row_formats
from tau2_slime.inspector.trajectory import Trajectory
from tau2_slime.outcome import Termination
from tau2_slime.world import domains, scoring, tau2_compat

CONFIRM = (
    "Do you confirm that I should go ahead (yes/no)?",
    "Shall I proceed?",
    "Would you like me to proceed with this?",
    "Please confirm with a yes.",
)
YES = ("Yes, please.", "Yes, go ahead.", "That's right, please proceed.", "Sure, do it.")


@dataclass(frozen=True)
class Label:
    """What is known about an episode because it was made so."""

    kind: str
    who: str
    what: str
    turn: int | None
    """None: not asked for."""


@dataclass
class Episode:
    """A conversation that is being written while it is played."""

    domain: str
    task: Any
    seed: int = 0
    messages: list[dict[str, Any]] = field(default_factory=list)
    rejected: dict[int, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.world = fresh_world(self.domain, "base", self.task)
        self.draw = random.Random(f"{self.domain}/{self.task.id}/{self.seed}")
        self.agent("Hi! How can I help you today?")

    def agent(self, text: str) -> int:
        self.messages.append({"role": "assistant", "content": text})
        return len(self.messages) - 1

    def user(self, text: str) -> int:
        self.messages.append({"role": "user", "content": text})
        return len(self.messages) - 1

    def call(self, name: str, arguments: dict[str, Any], requestor: str = "assistant", *, reaches: bool = True) -> int:
        """Make a call and write down its result; the index of the call's message."""
        t = tau2_compat.load()
        turn = len(self.messages)
        call = t.ToolCall(id=f"call_{turn}", name=name, arguments=deepcopy(arguments), requestor=requestor)
        role = "assistant" if requestor == "assistant" else "user"
        self.messages.append({"role": role, "content": None, "tool_calls": [call.model_dump()]})
        if reaches:
            result, _ = self.world.call(call)
            self.world.environment.sync_tools()
        else:
            result = self.world.error_result(call, "the tool call could not be read")
            self.rejected[turn] = [0]
        self.messages.append({**result.model_dump(mode="json", exclude_none=True), "role": "tool"})
        return turn

    def listed(self, name: str, arguments: dict[str, Any]) -> int:
        """The agent lists a write, the user says yes, the agent makes it; the index of the call."""
        self.agent(f"{listing(name, arguments)} {self.draw.choice(CONFIRM)}")
        self.user(self.draw.choice(YES))
        return self.call(name, arguments)

    def done(self, termination: Termination = Termination.USER_STOP, trial: int = 0) -> Trajectory:
        """The episode with τ²'s own reward."""
        from tau2_slime.episode.history import load_messages

        stamped = [
            {**m, "timestamp": f"2026-01-01T00:{i // 60:02}:{i % 60:02}", "turn_idx": i}
            for i, m in enumerate(self.messages)
        ]
        info = scoring.score(
            self.world,
            load_messages(stamped),
            self.rejected,
            termination,
            started=stamped[0]["timestamp"],
            duration=1.0,
        )
        run = {
            "id": "x",
            "task_id": self.task.id,
            "trial": trial,
            "termination_reason": termination.value,
            "messages": stamped,
            "reward_info": json.loads(info.model_dump_json()),
            "rejected_calls": self.rejected,
        }
        return row_formats.from_simulation(run, "made", {"environment_info": {"domain_name": self.domain}}, {})


def listing(name: str, arguments: dict[str, Any]) -> str:
    lines = "\n".join(f"- {key.replace('_', ' ')}: {json.dumps(value)}" for key, value in arguments.items())
    return f"Here is what I will do, {name.replace('_', ' ')}:\n{lines}\n"


def told(task: Any) -> str:
    i = task.user_scenario.instructions
    return i if isinstance(i, str) else " ".join(filter(None, (i.reason_for_call, i.known_info)))


def opening(task: Any) -> str:
    """The scenario's wish in the first person, more or less as simulators say it."""
    i = task.user_scenario.instructions
    text = (i if isinstance(i, str) else f"{i.reason_for_call} {i.known_info or ''}").strip()
    for old, new in (
        ("You are", "I am"),
        ("you are", "I am"),
        ("Your", "My"),
        ("your", "my"),
        ("You", "I"),
        ("you", "I"),
    ):
        text = text.replace(old, new)
    return text


@cache
def gold_calls(domain: str, task_id: str) -> tuple[tuple[str, str, str, bool], ...]:
    """(requestor, name, arguments as JSON, changes something) of each gold action that is not refused."""
    task = domains.find_task(domain, "base", task_id=task_id)
    world = fresh_world(domain, "base", task)
    t = tau2_compat.load()
    found = []
    for action in task.evaluation_criteria.actions or []:
        call = t.ToolCall(id="g", name=action.name, arguments=dict(action.arguments), requestor=action.requestor)
        write = writes(world, action.requestor, action.name)
        result, _ = world.call(call)
        world.environment.sync_tools()
        if not (write and result.error):
            found.append((str(action.requestor), action.name, json.dumps(action.arguments), write))
    return tuple(found)


def actions(domain: str, task: Any) -> list[tuple[str, str, dict[str, Any], bool]]:
    return [(r, n, json.loads(a), w) for r, n, a, w in gold_calls(domain, task.id)]


ASK_USER = {
    "toggle_airplane_mode": "Please turn airplane mode off.",
    "reseat_sim_card": "Please take out your SIM card and reseat it.",
    "toggle_data": "Please turn your mobile data on.",
    "toggle_roaming": "Please turn data roaming on on your phone.",
    "toggle_data_saver_mode": "Please turn data saver mode off.",
    "set_network_mode_preference": "Please change the network mode preference to 4G/5G.",
    "reset_apn_settings": "Please reset your APN settings.",
    "toggle_wifi_calling": "Please turn Wi-Fi calling off.",
    "disconnect_vpn": "Please disconnect your VPN.",
    "grant_app_permission": "Please grant the messaging app the permission that it lacks.",
    "reboot_device": "Please reboot your device.",
    "make_payment": "Please make the payment on your phone.",
    "toggle_wifi": "Please toggle your Wi-Fi.",
    "check_payment_request": "Please check the payment request.",
}


def step(e: Episode, requestor: str, name: str, arguments: dict[str, Any], write: bool) -> int:
    """One gold action as it should be played."""
    if requestor == "user":
        e.agent(ASK_USER.get(name, f"Please {name.replace('_', ' ')} on your device."))
        turn = e.call(name, arguments, "user")
        e.user("I have done that.")
        return turn
    return e.listed(name, arguments) if write else e.call(name, arguments)


def begin(domain: str, task: Any, seed: int, *, said: str | None = None) -> Episode:
    e = Episode(domain, task, seed)
    e.user(opening(task) if said is None else said)
    return e


def finish(e: Episode, *, info: bool = True, text: str = "") -> int:
    """The agent's last text and the user's stop; the index of the agent's text."""
    values = (e.task.evaluation_criteria.communicate_info or []) if info else []
    said = " ".join(f"The answer is {value}." for value in values)
    turn = e.agent(f"{text or 'Everything is done now.'} {said} Is there anything else I can help you with?")
    e.user("No, that is all. Thank you! ###STOP###")
    return turn


def play_all(e: Episode, change: Callable[[int, tuple[str, str, dict[str, Any], bool]], bool] | None = None) -> None:
    """Gold's actions in order; ``change(position, action)`` may play one otherwise and then returns True."""
    for position, action in enumerate(actions(e.domain, e.task)):
        if action[1] == "transfer_to_human_agents":
            e.call(action[1], action[2])
        elif change is None or not change(position, action):
            step(e, *action)


def own_writes(domain: str, task: Any) -> list[int]:
    return [i for i, (r, _, _, w) in enumerate(actions(domain, task)) if w and r == "assistant"]


Made = tuple[Trajectory, Label]
