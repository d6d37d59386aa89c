"""G8: the gold earns 1, doing nothing and transferring at once earn 0, by the product's own scoring."""

from __future__ import annotations

from tau2_slime.config.settings import Tau2Config
from tau2_slime.synth.gates.case import Case, Findings
from tau2_slime.tasks.plays import paid_without_a_model
from tau2_slime.world import scoring

_OF_WRITES = ("DB", "ENV_ASSERTION", "ACTION")


def check(case: Case, found: Findings) -> None:
    """G8."""
    criteria = case.task.evaluation_criteria
    if criteria is None or not criteria.reward_basis:
        found.fail("G8", "nothing is graded: every agent earns 1")
        return
    if scoring.needs_judge(case.task):
        found.fail("G8", "the reward needs an LLM judge (NL_ASSERTION in reward_basis)")
        return
    if case.writes and not any(basis.value in _OF_WRITES for basis in criteria.reward_basis):
        found.fail("G8", "the writes are not graded: reward_basis holds only what is said")
        return
    try:
        paid = paid_without_a_model(Tau2Config(domain=case.domain), case.task)
    except Exception as error:  # what a stranger's task makes of τ²
        found.fail("G8", f"it cannot be played: {type(error).__name__}: {str(error)[:120]}")
        return
    if paid.gold is None:
        found.fail("G8", f"the gold cannot be scored: {paid.why[:120]}")
        return
    # One that cannot be scored, as an assertion raises, earns nothing.
    plays = (
        ("the gold", paid.gold, 1.0),
        ("doing nothing", paid.do_nothing or 0.0, 0.0),
        ("a transfer at once", paid.transfer or 0.0, 0.0),
    )
    for what, earned, wanted in plays:
        if abs(earned - wanted) > 1e-6:
            found.fail("G8", f"{what} earns {earned:g}, not {wanted:g}")
            return
