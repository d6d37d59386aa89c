"""The same tool calls in one of our worlds and in τ²'s own environment; every answer, hash and reward is compared.

τ²'s own environments of airline and retail take a tenth of a second to build and to hash. So one `Twin` serves many
sequences: after each, the records that ours says were touched are compared one by one and put back. `Twin.check_untouched`
then hashes the whole: a record that τ² changed and ours does not know of would show there.
"""

from __future__ import annotations

import copy
import os
import pickle
from dataclasses import dataclass, field
from typing import Any

from tau2_slime.outcome import Termination
from tau2_slime.world import domains, scoring, tau2_compat
from tau2_slime.world.environment import World
from tau2_slime.world.fast import replay_check
from tau2_slime.world.fast.shared_db import CopyOnWriteDatabase, hashed_json
from tests import parity_play as play
from tests.parity_play import Call

NIGHTLY = bool(os.environ.get("TAU2_SLIME_NIGHTLY"))
DOMAINS = [name for name in domains.domains() if name not in play.CANNOT_RUN]
HEAVY = ("airline", "retail")


@dataclass
class Player:
    """One episode in our world: a conversation in which nobody says anything but tool calls."""

    domain: str
    task: Any
    solo: bool = False
    variant: str = play.OFFLINE
    """How a banking agent reads the documents."""
    messages: list[Any] = field(default_factory=list)
    rejected: dict[int, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        environment = {"retrieval_variant": self.variant}
        self.world = World(self.domain, "base", self.task, solo=self.solo, env_kwargs=environment)
        initial = self.task.initial_state
        history = copy.deepcopy((initial.message_history if initial else None) or [])
        self.world.set_state(history)
        self.messages = list(history)
        if not history and not self.solo:
            self.messages.append(tau2_compat.load().FIRST_AGENT_MESSAGE.model_copy())

    def call(self, call: Call) -> Any:
        """Run the call and record it as a message of whoever asked for it; returns the ToolMessage."""
        t = tau2_compat.load()
        tool_call = t.ToolCall(**copy.deepcopy(vars(call)))
        kind = t.AssistantMessage if call.requestor == "assistant" else t.UserMessage
        message = kind(role=call.requestor, content=None, tool_calls=[tool_call])
        result, reached = self.world.call(tool_call)
        if not reached:
            self.rejected[len(self.messages)] = [0]
        self.messages += [message, result]
        self.world.environment.sync_tools()
        return result

    def say(self, text: str) -> None:
        self.messages.append(tau2_compat.load().AssistantMessage(role="assistant", content=text))

    def reward(self, termination: Termination = Termination.USER_STOP) -> Any:
        now = tau2_compat.load().get_now()
        try:
            info = scoring.score(self.world, self.messages, self.rejected, termination, started=now, duration=0.0)
        except Exception as error:  # compared with what τ² raises
            return type(error)
        return info.model_dump(mode="json")

    def invented(self) -> bool:
        """True if a tool made up a random id: then no two environments agree on the database."""
        bills = getattr(self.world.environment.tools.db, "bills", [])
        return any(replay_check.NOT_REPEATABLE["refuel_data"].fullmatch(bill.bill_id) for bill in bills)

    def hashes(self) -> tuple[Any, Any]:
        environment = self.world.environment
        return environment.get_db_hash(), environment.get_user_db_hash()


def stock_reward(player: Player) -> Any:
    """τ²'s own verdict on what the player did."""
    t = tau2_compat.load()
    tau2_compat.restore_class_state()
    run = t.SimulationRun(
        id="x",
        task_id=player.task.id,
        start_time="",
        end_time="",
        duration=0.0,
        termination_reason=t.TerminationReason.USER_STOP,
        messages=scoring.replayable(player.messages, player.rejected),
    )
    return play.score_tau2(player.domain, player.task, run, solo=player.solo, variant=player.variant)


def why_replay_needed(player: Player) -> str | None:
    """Why τ² must replay what the player did; None if scoring may take the fast way."""
    assert player.world.fast is not None
    try:
        replay_check.require_equal_replay(scoring.replayable(player.messages, player.rejected), player.world)
    except replay_check.ReplayNeededError as error:
        return str(error)
    return None


def shared_database(world: World) -> CopyOnWriteDatabase:
    """The agent's database of a world whose domain shares one."""
    assert world.fast is not None and world.fast.database is not None
    return world.fast.database


class Twin:
    """τ²'s own environment of a domain, used for one sequence after another."""

    def __init__(self, domain: str) -> None:
        self.domain = domain
        self.environment: Any = None
        self.pristine: str | None = None
        self._tables: dict[str, dict[str, bytes]] = {}
        if domain in HEAVY:
            self.environment = play.tau2_environment(domain, domains.tasks(domain, "base")[0])
            self.pristine = self.environment.get_db_hash()
            db = self.environment.tools.db
            self._tables = {
                name: {key: pickle.dumps(record) for key, record in getattr(db, name).items()}
                for name in type(db).model_fields
            }

    def begin(self, task: Any, *, solo: bool = False) -> None:
        if self.domain in HEAVY:
            assert task.initial_state is None
            return
        tau2_compat.restore_class_state()
        self.environment = play.tau2_environment(self.domain, task, solo=solo)
        initial = task.initial_state
        self.environment.set_state(
            initialization_data=initial.initialization_data if initial else None,
            initialization_actions=initial.initialization_actions if initial else None,
            message_history=copy.deepcopy((initial.message_history if initial else None) or []),
        )

    def call(self, call: Call) -> Any:
        result = self.environment.get_response(tau2_compat.load().ToolCall(**copy.deepcopy(vars(call))))
        self.environment.sync_tools()
        return result

    def compare(self, player: Player) -> None:
        """The databases are the same; then this one is as it was before."""
        if self.domain not in HEAVY:
            assert player.hashes() == (self.environment.get_db_hash(), self.environment.get_user_db_hash())
            return
        database = shared_database(player.world)
        db = self.environment.tools.db
        for name, shared in database.parsed.tables.items():
            ours, theirs = database.tables[name], getattr(db, name)
            assert list(ours) == list(theirs), name
            for key in ours.touched:
                if key in theirs:
                    assert hashed_json(theirs[key]) == hashed_json(dict.__getitem__(ours, key)), (name, key)
            if list(theirs) != list(shared):
                theirs = {key: theirs.get(key) for key in shared}
                setattr(db, name, theirs)
            for key in ours.touched:
                if key in shared:
                    theirs[key] = pickle.loads(self._tables[name][key])

    def check_untouched(self) -> None:
        if self.environment is not None and self.pristine is not None:
            assert self.environment.get_db_hash() == self.pristine
            world = World(self.domain, "base", domains.tasks(self.domain, "base")[0])
            assert shared_database(world).parsed.db.get_hash() == self.pristine


def gold_calls(task: Any, *, solo: bool = False) -> list[Call]:
    criteria = task.evaluation_criteria
    actions = (criteria.actions if criteria else None) or []
    return [
        Call(a.name, a.arguments, "assistant" if solo else a.requestor, f"gold_{number}")
        for number, a in enumerate(actions)
    ]


def same(ours: Any, theirs: Any) -> None:
    assert (ours.content, ours.error, ours.id, ours.requestor) == (
        theirs.content,
        theirs.error,
        theirs.id,
        theirs.requestor,
    )
