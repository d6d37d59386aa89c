"""Tool calls that would hang the process, refused before they run.

Airline's and retail's ``calculate`` evaluates digits, ``+-*/().`` and spaces with Python's own operators, so
``9**9**9`` never returns and holds the GIL while it does not. Everything that τ² can answer keeps its answer: an
expression is refused only if an intermediate integer would pass `MAX_BITS` bits (60,000 decimal digits).
"""

from __future__ import annotations

import ast
from typing import Any

MAX_BITS = 200_000
MAX_CHARS = 20_000

_ALLOWED = set("0123456789+-*/(). ")
TOO_LARGE = "the expression is too large to calculate"


class _TooLargeError(Exception):
    pass


def refuse(name: str, arguments: dict[str, Any]) -> str | None:
    """The error text for a call that must not run, or None if it may."""
    if name != "calculate":
        return None
    expression = arguments.get("expression")
    if not isinstance(expression, str) or not set(expression) <= _ALLOWED:
        return None  # τ² refuses it itself, at once
    if len(expression) > MAX_CHARS:
        return TOO_LARGE
    try:
        tree = ast.parse(expression.strip(" "), mode="eval")
        _evaluate(tree.body)
    except (_TooLargeError, RecursionError, MemoryError):
        return TOO_LARGE
    except Exception:  # whatever is wrong with the expression (syntax, division by zero), τ² says it better
        return None
    return None


def _evaluate(node: ast.expr) -> int | float | complex:
    """Evaluate with Python's own operators, after checking that each step's operands and result are small."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float | complex):
        return node.value
    if isinstance(node, ast.UnaryOp):
        value = _evaluate(node.operand)
        return -value if isinstance(node.op, ast.USub) else +value
    if not isinstance(node, ast.BinOp):
        raise ValueError("not arithmetic")
    left, right = _evaluate(node.left), _evaluate(node.right)
    op = node.op
    if isinstance(op, ast.Pow):
        if isinstance(left, int) and isinstance(right, int) and right > 0 and left.bit_length() * right > MAX_BITS:
            if abs(left) > 1:
                raise _TooLargeError
        result = left**right
    elif isinstance(op, ast.Mult):
        if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > MAX_BITS:
            raise _TooLargeError
        result = left * right
    elif isinstance(op, ast.Add):
        result = left + right
    elif isinstance(op, ast.Sub):
        result = left - right
    elif isinstance(op, ast.Div):
        result = left / right
    elif isinstance(op, ast.FloorDiv):
        result = left // right  # type: ignore[operator]
    else:
        raise ValueError("not arithmetic")
    return result
