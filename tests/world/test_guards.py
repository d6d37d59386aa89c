"""No call of the policy hangs the process, and what τ² can answer is left to τ²."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tau2_slime.world import domains, guards, tau2_compat
from tau2_slime.world.environment import World
from tau2_slime.world.guards import GUARDS, NOT_ARITHMETIC, RUNAWAY_PATTERN, SLOW_PATTERN, TOO_LARGE


def refuse(name: str, arguments: dict[str, Any]) -> str | None:
    guard = GUARDS.get(name)
    return guard(arguments) if guard is not None else None


BOMBS = [
    "9**9**9",
    "10**10**10",
    "(9**9)**(9**9)",
    "  ((9**9**9))  ",
    "-9**9**9",
    "-(-(9**9**9))",
    "1/(9**9**9)",
    "0*9**9**9",
    "0**9**9**9",
    "9**9**9//9**9**9",
    "2**(9**9)*2.5",
    "7**7**7**7",
    "(2**99999999)//(2**99999998)",
    "2**-(9**9**9)",
    "(10**30000)**300",
    "2**10**400",
]
"""Expressions that τ² would work on for minutes, or for ever."""

HIDDEN = [
    "()+9**9**9",
    "...+9**9**9",
    "(...)**(9**9**9)",
    "1(9**9**9)",
    "(1)(2)**9**9**9",
    "9(8)(7**7**7**7)",
    "()*9**9**9",
]
"""Bombs beside what is not arithmetic: Python would work them off before it complains."""


def calculate(expression: Any) -> tuple[str | None, str | None]:
    """What a policy gets to read in retail, as (answer, error)."""
    t = tau2_compat.load()
    call = t.ToolCall(id="1", name="calculate", arguments={"expression": expression}, requestor="assistant")
    result, _ = _world().call(call)
    return (None, result.content) if result.error else (result.content, None)


_worlds: list[World] = []


def _world() -> World:
    if not _worlds:
        _worlds.append(World("retail", "base", domains.tasks("retail", "base")[0]))
    return _worlds[0]


def tau2_answers(expression: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _world().environment.tools.calculate(expression=expression)
    except Exception:
        return False
    return True


@pytest.mark.parametrize("expression", BOMBS)
def test_a_bomb_is_refused_as_an_error_result(expression: str) -> None:
    assert refuse("calculate", {"expression": expression}) == TOO_LARGE
    assert calculate(expression) == (None, f"Error: {TOO_LARGE}")


@pytest.mark.parametrize("expression", HIDDEN)
def test_a_bomb_beside_what_is_no_number_is_refused(expression: str) -> None:
    assert refuse("calculate", {"expression": expression}) == NOT_ARITHMETIC


@pytest.mark.parametrize(
    "chain",
    [
        "+".join(["9**20000"] * 2000),
        "//".join(["9**99999"] + ["9**5000"] * 5000),
        "*".join(["9**2000"] * 5000),
        "(" * 150 + "9" + "**99)" * 150,
        "**".join(["9"] * 2000),
        "**".join(["1.5"] * 500) + "**9**9**9",
    ],
)
def test_many_affordable_steps_are_refused_when_their_sum_is_not(chain: str) -> None:
    assert refuse("calculate", {"expression": chain}) == TOO_LARGE


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("2 + 2", "4.0"),
        ("  (3.5 - 1) * 4", "10.0"),
        ("2**10", "1024.0"),
        ("2**-1", "0.5"),
        ("10**100000 // 10**99999", "10.0"),
        ("9**-99999999", "0.0"),
        (".5**9999999", "0.0"),
        ("1**99999999999999999999", "1.0"),
        ("(-1)**99999999999999999999", "-1.0"),
        ("0**9", "0.0"),
        ("(-8)**2", "64.0"),
        ("+".join(["1"] * 2500), "2500.0"),
        ("+".join(["1**1"] * 2500), "2500.0"),
        ("+".join(["0.123456789012345"] * 2700), "333.33"),
        ("-" * 2501 + "1**1", "-1.0"),
    ],
)
def test_what_tau2_can_answer_it_answers(expression: str, answer: str) -> None:
    assert calculate(expression) == (answer, None)


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@pytest.mark.parametrize(
    "expression",
    ["1/0", "7//0", "0**-1", "(", "1 1", "", " ", "()", "...", "1(2)", "(-8)**.5", "9.9**999999", "x", "1e5", "007"],
)
def test_what_tau2_refuses_fast_is_left_to_its_own_words(expression: str) -> None:
    assert refuse("calculate", {"expression": expression}) is None
    answer, error = calculate(expression)
    assert answer is None and error is not None and error.startswith("Error: ")


@pytest.mark.parametrize("value", [None, 5, 2.5, ["9", "**", "9"], {"9**9**9": 1}, True, [], {}])
def test_an_expression_that_is_no_text_is_left_to_tau2(value: Any) -> None:
    assert refuse("calculate", {"expression": value}) is None
    calculate(value)
    assert refuse("calculate", {}) is None


@pytest.mark.filterwarnings("ignore::SyntaxWarning")
@settings(max_examples=400)
@given(st.text(alphabet="0123456789+-*/(). ", max_size=24))
def test_any_text_is_answered_or_refused(expression: str) -> None:
    """No example hangs; and a refusal never takes an answer away that τ² has at once."""
    assume(not re.search(r"\d{6}", expression))
    refusal = refuse("calculate", {"expression": expression})
    if refusal is None:
        tau2_answers(expression)
    elif expression.count("**") < 2 and not re.search(r"\d{4}", expression):
        assert not tau2_answers(expression), refusal


NUMBERS = st.one_of(
    st.integers(0, 99).map(str),
    st.integers(0, 10**9).map(str),
    st.floats(0, 1e6, allow_nan=False).map(lambda f: f"{f:.3f}"),
)


def _combine(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operators = st.sampled_from(["+", "-", "*", "/", "//", "**", " ** ", "**-", " - -"])
    return st.one_of(
        st.tuples(inner, operators, inner).map("".join),
        inner.map("({})".format),
        inner.map("-{}".format),
    )


@settings(max_examples=400)
@given(st.recursive(NUMBERS, _combine, max_leaves=12))
def test_no_arithmetic_hangs(expression: str) -> None:
    if refuse("calculate", {"expression": expression}) is None:
        tau2_answers(expression)


POWERS = st.tuples(NUMBERS, st.integers(-999, 999)).map("({0[0]}**{0[1]})".format)


@settings(max_examples=300)
@given(st.lists(POWERS, min_size=1, max_size=6), st.sampled_from(["+", "-", "*", "/", "//"]))
def test_powers_with_exponents_below_a_thousand_are_never_refused(powers: list[str], operator: str) -> None:
    assert refuse("calculate", {"expression": f" {operator} ".join(powers)}) is None


# ---- other tools -----------------------------------------------------------------------------------------------------


def test_other_tools_are_not_looked_at() -> None:
    assert refuse("get_user_details", {"expression": "9**9**9"}) is None


@pytest.mark.parametrize(
    "pattern",
    [
        *("(a+)+$", "(.*)*x", "((ab)*c*)*d", "(?:x|y*)+z", r"(\w+\s?)*!", "a*b*c*d*e*f"),
        *("(a|a)*$x", "(a|ab)*c", "(a?){20}b", "(a{0,9}){9}b", "(?:ab|a|b){30}c", "a?" * 30 + "b", "(a|a)" * 30 + "b"),
        *(".*.*.*.*x", r"[\s\S]*a[\s\S]*b[\s\S]*c[\s\S]*d", "(?=(a+)+$)b"),
    ],
)
def test_a_pattern_that_may_never_finish_is_refused(pattern: str) -> None:
    assert refuse("grep", {"pattern": pattern}) == RUNAWAY_PATTERN


@pytest.mark.parametrize(
    "pattern",
    [
        *("credit.*card", "fee|charge", r"\$\d+(,\d{3})?", "(gold|silver) .*card", "(", "[", "*", "", None),
        *(r"\$\d+(,\d{3})*(\.\d\d)?", "(?i)annual fees?", r"\b(APR|APY)\b.{0,40}\d+(\.\d+)?%", "[a-z]+@[a-z]+"),
        *("wire|transfer|domestic|international", "lost or stolen.*(card|cheque)s?"),
    ],
)
def test_an_ordinary_pattern_is_left_to_tau2(pattern: Any) -> None:
    assert refuse("grep", {"pattern": pattern}) is None


class Library:
    """A tool kit over documents, as τ²'s `grep` finds them."""

    def __init__(self, *documents: str) -> None:
        state = {"doc_content_map": {str(number): text for number, text in enumerate(documents)}}
        self._grep_pipeline = SimpleNamespace(state=state, retrievers=[SimpleNamespace(case_sensitive=False)])


@pytest.mark.parametrize("pattern", [r"[\s\S]*a[\s\S]*b[\s\S]*Q", r"(?s).*.*.*Q", r"\D*\D*Q"])
def test_a_pattern_that_is_slow_on_the_documents_is_refused(pattern: str) -> None:
    """Each stays below what is refused at sight, and would take from seconds to days."""
    library = Library(*["a b\n" * 1500] * 40)
    assert refuse("grep", {"pattern": pattern}) is None, "not refused at sight"
    assert GUARDS["grep"]({"pattern": pattern}, library) == SLOW_PATTERN


def test_an_ordinary_pattern_is_quick_on_the_documents_and_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library(*["The annual fee of the gold card is $95.\n" * 60] * 100)
    looked_at: list[str] = []
    is_slow = guards._is_slow

    def counted(pattern: re.Pattern[str], *rest: Any) -> bool:
        looked_at.append(pattern.pattern)
        return is_slow(pattern, *rest)

    monkeypatch.setattr(guards, "_is_slow", counted)
    for _ in range(3):
        for pattern in ("gold.*card", "fee|charge", r"\$\d+"):
            assert GUARDS["grep"]({"pattern": pattern}, library) is None
    assert looked_at == ["gold.*card", r"\$\d+"], "what cannot be slow is not tried"


def _evaluates(function: Any) -> bool:
    """True if the function's own body evaluates text, matches patterns or loops without an end in sight."""
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        if isinstance(node, ast.While):
            return True
        if isinstance(node, ast.Name) and node.id in ("eval", "exec", "compile", "re"):
            return True
    return False


def test_every_tool_that_evaluates_what_the_policy_wrote_is_known() -> None:
    """A new release with another ``eval`` in its tools must be looked at before it is trusted."""
    found = set()
    for domain in domains.domains():
        task = domains.tasks(domain, "base")[0]
        environment = World(domain, "base", task).environment
        for kit in (environment.tools, environment.user_tools):
            for name in kit.get_tools() if kit is not None else ():
                if _evaluates(getattr(type(kit), name)):
                    found.add(name)
    assert found == {"calculate"}
