"""Tool calls that would hang the process, refused before they run.

Airline's and retail's ``calculate`` evaluates digits, ``+-*/().`` and spaces with Python's own operators. ``9**9**9`` would
never return and never release the GIL. banking_knowledge's ``grep`` runs any regular expression over every document. A call
that τ² can answer within a moment gets τ²'s answer. An answer that no context could hold is refused as well.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

MAX_WORK = 10_000_000
"""Work on big integers that one expression may cause, in products of 30-bit digits: some 30 ms."""
MAX_CHARS = 50_000
"""Length of one expression."""
MAX_REPEATS = 3
"""Open-ended repeats of one regular expression."""
MAX_BITS = 12.0
"""Of its other choices: 12 optional characters, or 6 choices among 4 words."""
MAX_SECONDS = 0.25
"""CPU time that one regular expression may need for all documents."""
MAX_ANSWER = 2**18
"""Characters of one answer of a tool that only reads: some 65,000 tokens."""

_ALLOWED = set("0123456789+-*/(). ")
TOO_LARGE = "the expression is too large to calculate"
NOT_ARITHMETIC = "the expression is not arithmetic"
RUNAWAY_PATTERN = "the pattern could take forever to match: repeats must not be nested, nor be many"
SLOW_PATTERN = "the pattern takes too long over all documents: begin it with a word, and repeat less than any character"
LONG_ANSWER = "the answer is too long to be shown: ask for less"


class _TooLargeError(Exception):
    pass


# ---- calculate -------------------------------------------------------------------------------------------------------


def _refuse_calculate(arguments: dict[str, Any], kit: object = None) -> str | None:
    """The error text for a call that must not run; None if it may.

    >>> _refuse_calculate({"expression": "9**9**9"})
    'the expression is too large to calculate'
    >>> _refuse_calculate({"expression": "2 * (3 + 4)"})
    """
    expression = arguments.get("expression")
    if not isinstance(expression, str) or not set(expression) <= _ALLOWED:
        return None  # τ² refuses it itself, at once
    if len(expression) > MAX_CHARS:
        return TOO_LARGE
    if "**" not in expression:
        return None  # no operator but the power makes numbers that are much longer than the text
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            nodes = _in_reverse(ast.parse(expression.strip(" "), mode="eval").body)
    except (SyntaxError, ValueError):
        return None  # τ² cannot parse it either, and says so
    except (RecursionError, MemoryError):
        return TOO_LARGE
    # An empty tuple, an ellipsis, a "call" of a number: τ² would notice it only after it has calculated everything else.
    if not all(isinstance(node, ast.BinOp | ast.UnaryOp) or _is_number(node) for node in nodes):
        return NOT_ARITHMETIC
    try:
        _evaluate(nodes)
    except _TooLargeError:
        return TOO_LARGE
    except (ArithmeticError, TypeError, ValueError):
        return None  # a division by zero, an overflow, a complex number: τ² fails at the same place
    return None


def _is_number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool)


def _in_reverse(root: ast.expr) -> list[ast.expr]:
    """All expressions under ``root``, in the reverse of the order in which Python evaluates them (no recursion)."""
    found: list[ast.expr] = []
    stack = [root]
    while stack:
        node = stack.pop()
        found.append(node)
        if isinstance(node, ast.BinOp):
            stack += [node.left, node.right]
        elif isinstance(node, ast.UnaryOp):
            stack.append(node.operand)
    return found


def _evaluate(nodes: list[ast.expr]) -> None:
    """Evaluate with Python's own operators, each step only if its work fits into what is left of `MAX_WORK`.

    Raises:
        _TooLargeError: it does not.
    """
    values: list[Any] = []
    work = 0.0
    for node in reversed(nodes):
        if isinstance(node, ast.Constant):
            values.append(node.value)
        elif isinstance(node, ast.UnaryOp):
            value = values.pop()
            values.append(-value if isinstance(node.op, ast.USub) else +value)
        elif isinstance(node, ast.BinOp):
            right, left = values.pop(), values.pop()
            if isinstance(left, int) and isinstance(right, int):
                work += _work_of(left, node.op, right)
                if work > MAX_WORK:
                    raise _TooLargeError
            values.append(_OPERATORS[type(node.op)](left, right))


_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], int | float | complex]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}


def _work_of(left: int, op: ast.operator, right: int) -> float:
    """About how many products of 30-bit digits the step costs (CPython: Karatsuba multiplication, schoolbook division)."""
    a, b = 1 + left.bit_length() // 30, 1 + right.bit_length() // 30
    if isinstance(op, ast.Mult):
        return float(max(a, b) * min(a, b) ** 0.6)
    if isinstance(op, ast.FloorDiv):
        return b * max(1, a - b + 1)
    if not isinstance(op, ast.Pow) or right < 0:
        return a + b
    if abs(left) < 2:
        return 30.0 * right.bit_length()  # 1, 0 or -1, multiplied once per bit of the exponent
    if right > MAX_WORK * 30:
        raise _TooLargeError
    digits = right * math.log2(abs(left)) / 30
    return digits**1.6 if digits < MAX_WORK else math.inf


# ---- grep ------------------------------------------------------------------------------------------------------------


def _refuse_grep(arguments: dict[str, Any], kit: object = None) -> str | None:
    """``kit``: the tool kit that has the documents; without it only the pattern is looked at."""
    pattern = arguments.get("pattern")
    if not isinstance(pattern, str):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parsed = re._parser.parse(pattern)  # type: ignore[attr-defined]  # as re.compile sees it
    except (re.error, RecursionError, OverflowError):
        return None  # τ² searches for the text itself
    try:
        choices = _choices(parsed, repeated=False)
    except _TooManyWaysError:
        return RUNAWAY_PATTERN
    if choices.open_ended > MAX_REPEATS or choices.bits > MAX_BITS:
        return RUNAWAY_PATTERN
    pipeline = getattr(kit, "_grep_pipeline", None)
    if pipeline is None or not (choices.open_ended or choices.bits > MAX_BITS / 2):
        return None
    documents: dict[str, str] = pipeline.state["doc_content_map"]
    flags = 0 if pipeline.retrievers[0].case_sensitive else re.IGNORECASE
    key = pattern, flags, len(documents)
    if key not in _slow:
        if len(_slow) >= _SLOW_KEPT:
            _slow.clear()
        _slow[key] = _is_slow(re.compile(pattern, flags), documents.values(), 2 ** (choices.open_ended + 1))
    return SLOW_PATTERN if _slow[key] else None


_slow: dict[tuple[str, int, int], bool] = {}
"""(pattern, flags, number of documents) -> what `_is_slow` found: attempts at one task ask for the same again."""
_SLOW_KEPT = 4096


def _is_slow(pattern: re.Pattern[str], documents: Iterable[str], growth: int) -> bool:
    """True if the pattern needs more than `MAX_SECONDS` for ``documents``. Finding that out takes hardly longer.

    Python cannot stop a match that has begun. So each document is searched from the beginning in pieces, of which each is
    twice as long as the one before. The next one takes at most ``growth`` times as long.
    """
    left = MAX_SECONDS
    for text in documents:
        length = 64
        while True:
            begun = time.thread_time()
            pattern.findall(text, 0, length)
            took = time.thread_time() - begun
            left -= took
            if left < 0:
                return True
            if length >= len(text):
                break
            if took * growth > left:
                return True
            length *= 2
    return False


class _TooManyWaysError(Exception):
    """Something that can match in several ways is repeated: the ways multiply with each repetition."""


class _Choices(NamedTuple):
    """What a regular expression may have to try again when it fails."""

    open_ended: int = 0
    """Repeats without a small limit, one after the other."""
    bits: float = 0.0
    """Of the other choices: the logarithm of the number of ways."""

    def __add__(self, other: object) -> _Choices:
        assert isinstance(other, _Choices)
        return _Choices(self.open_ended + other.open_ended, self.bits + other.bits)


def _choices(part: object, *, repeated: bool) -> _Choices:
    """The choices in a parsed regular expression; ``repeated``: it stands inside a repeat.

    Raises:
        _TooManyWaysError: a choice stands inside a repeat, as in ``(a+)+``, ``(a|ab)*`` or ``(a?){20}``.
    """
    found = _Choices()
    kind = str(part[0]) if isinstance(part, tuple) and len(part) == 2 else ""
    if isinstance(part, tuple) and kind in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
        low, high, body = part[1]
        low, high = int(low), int(high)
        if repeated and low != high:
            raise _TooManyWaysError
        found = _choices(body, repeated=repeated or high > 1)
        if high - low > 10:
            return found + _Choices(open_ended=1)
        return found + _Choices(bits=math.log2(high - low + 1))
    if isinstance(part, tuple) and kind == "BRANCH":
        if repeated:
            raise _TooManyWaysError
        found = _Choices(bits=math.log2(len(part[1][1])))
    if isinstance(part, tuple | list | re._parser.SubPattern):  # type: ignore[attr-defined]
        for inner in part:
            found += _choices(inner, repeated=repeated)
    return found


GUARDS: dict[str, Callable[..., str | None]] = {"calculate": _refuse_calculate, "grep": _refuse_grep}
"""Tool -> what finds the error text for a call with these arguments, of this tool kit, that must not run; None if it may."""
