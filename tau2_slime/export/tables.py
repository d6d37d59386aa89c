"""Episodes as rows for tools that know nothing of slime: OpenAI's fine-tuning, Hugging Face datasets, data frames."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tau2_slime.episode import history
from tau2_slime.episode.agents import chat_message
from tau2_slime.errors import ConfigError
from tau2_slime.export.origin import task_id_of
from tau2_slime.inspector.shown import messages_of

if TYPE_CHECKING:
    from tau2_slime.export.conversation import Chat
    from tau2_slime.export.episodes import Episode

_COUNTERS = (
    *("agent_turns", "user_turns", "steps", "agent_errors", "user_errors"),
    *("total_time", "generation_time", "user_time", "user_cost"),
)
"""Of `EpisodeStats`, what a data frame shows."""


def openai_row(chat: Chat) -> dict[str, Any]:
    """A line of OpenAI's fine-tuning format; an assistant message of ``weight`` 0 is not trained."""
    messages = []
    for one in chat.messages:
        message = _arguments_as_text(one.content)
        if one.content["role"] == "assistant" and not one.sampled:
            message["weight"] = 0
        messages.append(message)
    return {"messages": messages, "tools": chat.tools}


def hf_row(episode: Episode, chat: Chat) -> dict[str, Any]:
    """A row of one shape for all tasks: call arguments and tools are JSON text, because a column has one type."""
    one = episode.trajectory
    messages = [
        {
            "role": message.content["role"],
            "content": message.content["content"],
            "tool_calls": _arguments_as_text(message.content).get("tool_calls") or [],
            "tool_call_id": message.content.get("tool_call_id") or "",
            "trained": message.sampled,
        }
        for message in chat.messages
    ]
    return {
        "messages": messages,
        "tools": json.dumps(chat.tools, ensure_ascii=False),
        "domain": one.domain,
        "task_split": one.task_split,
        "task_id": one.task_id,
        "reward": one.reward,
        "episode": episode.name,
    }


def example_row(episode: Episode) -> dict[str, Any]:
    """A line of the file that the setting ``few_shot`` names: the conversation as the policy saw it, without its prompt.

    Raises:
        NotComparable: the file keeps no messages that τ² can read.
    """
    one = episode.trajectory
    seen = [chat_message(message) for message in messages_of(one) if history.agent_sees(message)]
    facts = {"domain": one.domain, "task_split": one.task_split, "task_id": task_id_of(one), "episode": episode.name}
    return {**facts, "messages": seen}


def _arguments_as_text(message: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(message)
    if out.get("tool_calls"):
        out["tool_calls"] = [
            {
                **call,
                "function": {
                    "name": call["function"]["name"],
                    "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
                },
            }
            for call in out["tool_calls"]
        ]
    return out


def table_row(episode: Episode) -> dict[str, str | int | float | bool | None]:
    """One episode as a row of a data frame, whether or not it would leave as training data."""
    one = episode.trajectory
    ledger = one.ledger or {}
    fields = ("domain", "task_split", "task_id", "agent_type", "user_model", "status", "termination", "blame")
    calls = one.stats.get("tool_calls")
    row: dict[str, str | int | float | bool | None] = {
        "run": str(episode.run.path),
        "episode": one.name,
        "group": one.group,
        **{name: str(getattr(one, name)) for name in fields},
        "excluded": one.excluded,
        "reward": one.reward,
        "detail": one.detail,
        "prompt_tokens": one.prompt_length,
        "sampled_tokens": one.sampled_count(),
        "trained_tokens": sum(ledger.get("loss_mask") or []),
        "tokens": len(one.tokens),
        "left_out": episode.left_out,
        "why": episode.why,
    }
    row |= {name: value for name in _COUNTERS if isinstance(value := one.stats.get(name), (int, float))}
    row |= {f"tool_calls/{k}": int(v) for k, v in calls.items()} if isinstance(calls, Mapping) else {}
    return row | {name: float(value) for name, value in one.telemetry.items()}


def csv_text(rows: Sequence[Mapping[str, object]]) -> str:
    """``rows`` as CSV with every column that any row has, in the order in which they appear."""
    out = io.StringIO()
    writer = csv.DictWriter(out, _columns(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _encodable(value: object) -> object:
    """``value`` with "?" for halves of surrogate pairs, which a model can write and no file can hold."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {key: _encodable(item) for key, item in value.items()}
    return [*map(_encodable, value)] if isinstance(value, (list, tuple)) else value


def parquet_bytes(rows: Sequence[Mapping[str, object]]) -> bytes:
    """``rows`` as a parquet file.

    Raises:
        ConfigError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise ConfigError("writing parquet needs the package pyarrow: pip install pyarrow") from None
    out = io.BytesIO()
    columns = _columns(rows)
    table = pa.Table.from_pylist([{name: _encodable(row.get(name)) for name in columns} for row in rows])
    parquet.write_table(table, out)
    return out.getvalue()


def _columns(rows: Iterable[Mapping[str, object]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))
