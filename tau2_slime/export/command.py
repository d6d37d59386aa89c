"""Runs in, files and a card out: what `tau2-slime export` does once the command line is understood."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_slime.errors import ConfigError
from tau2_slime.export import slime_dump, slime_messages, tables
from tau2_slime.export.card import CARD, card, checkpoint_record, hashes
from tau2_slime.export.conversation import Chat
from tau2_slime.export.episodes import Episode, Filters, Run, filtered, read_runs
from tau2_slime.inspector.check import check_trajectory
from tau2_slime.inspector.drift_check import DriftCounts, check_drift
from tau2_slime.inspector.shown import NotComparable
from tau2_slime.inspector.tokenizers import language_of
from tau2_slime.runtime.files import hold_folder, write_atomically

if TYPE_CHECKING:
    from tau2_slime.policy.checkpoint import CheckpointProfile


class Format(StrEnum):
    """What the files are for."""

    SLIME_SFT = "slime-sft"
    OPENAI = "openai"
    HF = "hf"
    DATAFRAME = "dataframe"
    EXAMPLES = "examples"


class Route(StrEnum):
    """How slime's SFT gets its tokens."""

    EXACT = "exact"
    MESSAGES = "messages"


class Side(StrEnum):
    """Of a conversation."""

    AGENT = "agent"
    USER = "user"


@dataclass(frozen=True)
class ExportRequest:
    """What the command line asks for."""

    runs: tuple[Path, ...]
    format: Format
    output_dir: Path
    filters: Filters = field(default_factory=Filters)
    side: Side = Side.AGENT
    """Whose words are trained."""
    hf_checkpoint: str | None = None
    """Of the policy whose tokens these are; None: what the runs say."""
    trust_remote_code: bool = False
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    route: Route = Route.EXACT
    loss_mask_type: str | None = None
    """slime's ``--loss-mask-type``; None: the one that proves the most rows."""
    slime_dir: Path | None = None
    """A slime checkout, for its mask generator; None: the installed slime."""
    batch: int = 32
    """Episodes of one optimizer step of slime's SFT."""
    epochs: int = 1
    seed: int = 42


@dataclass(frozen=True)
class Exported:
    """What came of it."""

    card: dict[str, Any]
    episodes: list[Episode]


def export(request: ExportRequest) -> Exported:
    """Read, filter, write.

    Raises:
        ConfigError: a run cannot be read, the folder holds something, the checkpoint is unknown or unusable, no episode is
            left, or a package is missing.
        OSError: a file cannot be written.
    """
    folder = request.output_dir
    if folder.exists() and any(path.name != ".lock" for path in folder.iterdir()):
        raise ConfigError(f"{folder} is not empty; name another folder with --output-dir")
    runs = read_runs(request.runs)
    if not any(run.found.trajectories for run in runs):
        first = next((line for run in runs for line in run.found.unreadable), "it is empty")
        raise ConfigError(f"{', '.join(str(run.path) for run in runs)}: no episode in it can be read: {first}")
    episodes = filtered(runs, request.filters)
    with hold_folder(folder, "export"):
        written = _WRITERS[request.format](request, runs, episodes)
        write_atomically(folder / "left_out.jsonl", _left_out(episodes))
        made = card(str(request.format), runs, episodes, request.filters, {**written, "files": hashes(folder)})
        write_atomically(folder / CARD, json.dumps(made, indent=1, ensure_ascii=False) + "\n")
    return Exported(made, episodes)


def _leaving(episodes: Sequence[Episode]) -> list[Episode]:
    return [one for one in episodes if not one.left_out]


def _some(episodes: Sequence[Episode]) -> list[Episode]:
    """Those that leave. Raises ConfigError, with what keeps the others, if there are none."""
    left = _leaving(episodes)
    if not left:
        why = Counter(one.left_out for one in episodes)
        first = next((one.why for one in episodes if one.left_out == next(iter(why), "")), "")
        told = ", ".join(f"{count} {reason}" for reason, count in why.most_common())
        raise ConfigError(f"none of {len(episodes)} episodes is left ({told}); the first: {first}")
    return left


def _left_out(episodes: Sequence[Episode]) -> Iterator[str]:
    for one in episodes:
        if one.left_out:
            row = {"episode": one.name, "task": one.trajectory.task_label, "reason": one.left_out, "why": one.why}
            yield json.dumps(row, ensure_ascii=False) + "\n"


def _lines(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    return (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _chats(episodes: Sequence[Episode], side: Side) -> list[tuple[Episode, Chat]]:
    """Each episode that leaves with its conversation; one that cannot be told again stays."""
    told = []
    for one in _leaving(episodes):
        try:
            told.append((one, Chat.of(one.trajectory) if side is Side.AGENT else Chat.of_user(one.trajectory)))
        except NotComparable as error:
            one.leave_out("no-conversation", str(error))
    return told


# ---- slime's SFT -------------------------------------------------------------------------------------------------------


def _slime_sft(request: ExportRequest, runs: Sequence[Run], episodes: Sequence[Episode]) -> dict[str, object]:
    if request.side is Side.USER:
        return _user_messages(request, episodes)
    for one in _leaving(episodes):
        if one.trajectory.ledger is None or not one.trajectory.tokens:
            one.leave_out("no-tokens", "the file keeps no tokens")
    language, name = _language(request, runs)
    _leave_out_other_tokens(_leaving(episodes), language)
    write = _exact if request.route is Route.EXACT else _messages
    written = write(request, episodes, language)
    return {
        "route": str(request.route),
        "checkpoint": checkpoint_record(name, language.delta.template),
        "chat_template_kwargs": request.chat_template_kwargs,
        "steps": slime_dump.step_count(len(_leaving(episodes)), batch=request.batch, epochs=request.epochs),
        "global_batch_size": request.batch,
        "epochs": request.epochs,
        **written,
    }


def _user_messages(request: ExportRequest, episodes: Sequence[Episode]) -> dict[str, object]:
    """Rows of the user's side: its own tokens are not known, so slime's rendering is taken as it is."""
    told = _chats(episodes, Side.USER)
    _some(episodes)
    rows = [slime_messages.slime_row(one.trajectory, chat) for one, chat in told]
    write_atomically(request.output_dir / "messages.jsonl", _lines(rows))
    return {"route": str(Route.MESSAGES), "side": str(Side.USER)}


def _language(request: ExportRequest, runs: Sequence[Run]) -> tuple[CheckpointProfile, str]:
    for run in runs:
        language = language_of(
            run.found,
            request.hf_checkpoint,
            request.chat_template_kwargs,
            trust_remote_code=request.trust_remote_code,
        )
        if language is not None:
            return language, request.hf_checkpoint or run.found.checkpoint or "the embedded policy's"
    raise ConfigError("the runs do not say whose tokens these are: name the policy's folder with --hf-checkpoint")


def _leave_out_other_tokens(episodes: Sequence[Episode], language: CheckpointProfile) -> None:
    """An episode whose tokens are not what this checkpoint's template and tokenizer write would teach noise."""
    counted = DriftCounts()
    for one in episodes:
        if found := check_trajectory(one.trajectory):
            one.leave_out("damaged", str(found[0]))
        elif found := check_drift(one.trajectory, language, counted):
            one.leave_out(
                "other-tokens", f"{found[0]}; was it played with this checkpoint and these chat_template_kwargs?"
            )


def _exact(request: ExportRequest, episodes: Sequence[Episode], language: CheckpointProfile) -> dict[str, object]:
    kept = _some(episodes)
    plan = slime_dump.steps(kept, batch=request.batch, epochs=request.epochs, seed=request.seed)
    template = language.delta.template
    for step, batch in enumerate(plan):
        write_atomically(
            request.output_dir / f"{step}.pt", slime_dump.torch_file(slime_dump.dumped_step(step, batch, template))
        )
    return {"seed": request.seed}


def _messages(request: ExportRequest, episodes: Sequence[Episode], language: CheckpointProfile) -> dict[str, object]:
    from tau2_slime.slime_adapter.compat import mask_generator

    told = [(one, slime_messages.slime_row(one.trajectory, chat)) for one, chat in _chats(episodes, Side.AGENT)]
    types = (request.loss_mask_type,) if request.loss_mask_type else slime_messages.MASK_TYPES
    tried: list[tuple[str, list[slime_messages.Proof]]] = []
    for kind in types:
        try:
            generator = mask_generator(language.delta.template.tokenizer, kind, request.slime_dir)
            proofs = [slime_messages.prove(row, one.trajectory, generator, language.delta) for one, row in told]
        except ValueError as error:
            proofs = [slime_messages.Proof(str(error)) for _ in told]
        tried.append((kind, proofs))
        if not any(proof.difference for proof in proofs):
            break
    kind, proofs = min(tried, key=lambda one: sum(bool(proof.difference) for proof in one[1]))
    for (one, _), proof in zip(told, proofs, strict=True):
        if proof.difference:
            one.leave_out("not-as-sampled", f"{proof.difference}; --route exact has no such difference")
    _some(episodes)
    proved = [(row, proof) for (_, row), proof in zip(told, proofs, strict=True) if not proof.difference]
    write_atomically(request.output_dir / "messages.jsonl", _lines([row for row, _ in proved]))
    return {"loss_mask_type": kind, "trained_line_breaks": sum(proof.line_breaks for _, proof in proved)}


# ---- others ------------------------------------------------------------------------------------------------------------


def _openai(request: ExportRequest, runs: Sequence[Run], episodes: Sequence[Episode]) -> dict[str, object]:
    told = _chats(episodes, request.side)
    _some(episodes)
    write_atomically(request.output_dir / "train.jsonl", _lines([tables.openai_row(chat) for _, chat in told]))
    return {"side": str(request.side)}


def _examples(request: ExportRequest, runs: Sequence[Run], episodes: Sequence[Episode]) -> dict[str, object]:
    rows = []
    for one in _leaving(episodes):
        try:
            rows.append(tables.example_row(one))
        except NotComparable as error:
            one.leave_out("no-conversation", str(error))
    _some(episodes)
    write_atomically(request.output_dir / "examples.jsonl", _lines(rows))
    return {}


def _hf(request: ExportRequest, runs: Sequence[Run], episodes: Sequence[Episode]) -> dict[str, object]:
    told = _chats(episodes, request.side)
    _some(episodes)
    data = tables.parquet_bytes([tables.hf_row(one, chat) for one, chat in told])
    (request.output_dir / "data").mkdir(exist_ok=True)
    write_atomically(request.output_dir / "data" / "train-00000-of-00001.parquet", data)
    write_atomically(request.output_dir / "README.md", _HF_README)
    return {"side": str(request.side)}


_HF_README = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
---
Episodes of τ²-bench. `card.json` says where they come from. `tools` and the arguments of calls are JSON text; the policy
wrote the assistant messages with `trained` true.
"""


def _dataframe(request: ExportRequest, runs: Sequence[Run], episodes: Sequence[Episode]) -> dict[str, object]:
    rows = [tables.table_row(one) for one in episodes]
    write_atomically(request.output_dir / "episodes.csv", tables.csv_text(rows))
    try:
        write_atomically(request.output_dir / "episodes.parquet", tables.parquet_bytes(rows))
    except ConfigError:  # without pyarrow the CSV alone
        return {"rows": len(rows), "parquet": False}
    return {"rows": len(rows), "parquet": True}


_WRITERS = {
    Format.SLIME_SFT: _slime_sft,
    Format.OPENAI: _openai,
    Format.HF: _hf,
    Format.DATAFRAME: _dataframe,
    Format.EXAMPLES: _examples,
}
