"""G8: the gold earns 1, doing nothing and transferring at once earn 0, by the product's own scoring."""

from __future__ import annotations

from tau2_slime.synth import official
from tau2_slime.synth.gates.case import Case, Findings
from tau2_slime.world import scoring


def check(case: Case, found: Findings) -> None:
    """G8."""
    criteria = case.task.evaluation_criteria
    if criteria is None or not criteria.reward_basis:
        found.fail("G8", "nothing is graded: every agent earns 1")
        return
    if scoring.needs_judge(case.task):
        found.fail("G8", "the reward needs an LLM judge (NL_ASSERTION in reward_basis)")
        return
    plays = (
        ("the gold", official.gold_reward, 1.0),
        ("doing nothing", official.nothing_reward, 0.0),
        ("a transfer at once", official.transfer_reward, 0.0),
    )
    for what, play, wanted in plays:
        try:
            earned = play(case.domain, case.task)
        except Exception as error:  # τ²'s evaluator raises whatever it likes
            if wanted == 0.0:
                continue  # an assertion that raises pays nothing
            found.fail("G8", f"{what} cannot be scored: {type(error).__name__}: {str(error)[:120]}")
            return
        if abs(earned - wanted) > 1e-6:
            found.fail("G8", f"{what} earns {earned:g}, not {wanted:g}")
            return
