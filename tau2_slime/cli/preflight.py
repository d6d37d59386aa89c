"""What `tau2-slime doctor` checks for a launch: files, GPUs and data, before slime takes minutes to find out.

Each check says what is fine and raises `ConfigError` for what is wrong: what it is, where, and the fix. A check of data rows
also says which user models their episodes will call.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tau2_slime.config.settings import Tau2Config
from tau2_slime.data.rows import read_rows, row_task
from tau2_slime.episode.users import models_of
from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.plan.datasets import load_plan
from tau2_slime.policy.context_plan import Played

if TYPE_CHECKING:
    from tau2_slime.tokens.template.chat_template import ChatTemplate

Caller = tuple[str, Tau2Config]
"""A user model, and a configuration that calls it."""


@dataclass(frozen=True)
class RowsFound:
    """What a set of rows will play."""

    text: str
    users: list[Caller]
    """`distinct` ones."""
    played: list[Played]
    """Settings and task of every row."""


def torch_dist(folder: Path) -> str:
    """The checkpoint in Megatron's format that training starts from is there, and its conversion finished."""
    marker = folder / "latest_checkpointed_iteration.txt"
    if not folder.is_dir():
        raise ConfigError(f"{folder} is missing: convert the checkpoint with slime's tools/convert_hf_to_torch_dist.py")
    if not marker.is_file():
        raise ConfigError(f"{folder} has no {marker.name}: the conversion did not finish; delete it and convert again")
    return f"{folder}, iteration {marker.read_text().strip()}"


def slime_source(folder: Path) -> str:
    """A slime checkout that this process can import `slime` from."""
    if not (folder / "train.py").is_file() or not (folder / "slime" / "__init__.py").is_file():
        raise ConfigError(
            f"{folder} is not a slime checkout (no train.py or no slime/ in it): set SLIME_DIR to where it was cloned"
        )
    return str(folder)


def gpus(wanted: int) -> str:
    """``wanted`` GPUs are visible to this process."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        raise ConfigError(f"no nvidia-smi here: a machine with {wanted} GPUs is needed (NUM_GPUS)")
    listed = subprocess.run([smi, "-L"], capture_output=True, text=True, timeout=60)
    there = [line for line in listed.stdout.splitlines() if line.startswith("GPU ")]
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = len(there) if chosen is None else len([word for word in chosen.split(",") if word.strip()])
    if listed.returncode or count < wanted:
        limited = "" if chosen is None else f" (CUDA_VISIBLE_DEVICES={chosen})"
        said = f": {listed.stdout.strip()[:200]}" if listed.returncode else ""
        raise ConfigError(f"{count} GPUs are visible{limited}, {wanted} are asked for: set NUM_GPUS={count}{said}")
    model = there[0].split(":", 1)[1].split("(")[0].strip() if there else "?"
    return f"{count} x {model}, {wanted} used"


def prompt_data(spec: str, tau2: Mapping[str, object]) -> RowsFound:
    """Every row of slime's ``--prompt-data`` names a task that the installed τ² has and can score.

    ``tau2`` is the ``tau2:`` mapping of the job.
    """
    found = [row_task(row, tau2=tau2) for row in read_rows(spec)]
    configs = [one.config for one in found]
    played = [(one.config, str(one.task.id)) for one in found]
    return RowsFound(f"{spec}: {_counted(configs)}", _callers(configs, training=True), played)


def sft_data(folder: Path, template: ChatTemplate, template_kwargs: Mapping[str, object]) -> str:
    """What `tau2-slime export --format slime-sft` wrote is whole, and its tokens are those of this checkpoint."""
    from tau2_slime.export.card import checkpoint_record, hashes, read_card

    card = read_card(folder)
    if card.get("format") != "slime-sft":
        raise ConfigError(f"{folder} holds {card.get('format')}: export again with --format slime-sft")
    wanted, there = card.get("files", {}), hashes(folder)
    wrong = sorted(name for name, digest in wanted.items() if there.get(name) != digest)
    if wrong:
        raise ConfigError(f"{folder}: {', '.join(wrong[:3])} missing or changed since the export: export again")
    made, here = card["checkpoint"], checkpoint_record("", template)
    for part, name in (("vocabulary", "vocabulary"), ("chat_template", "chat template")):
        if made[part] != here[part]:
            raise ConfigError(
                f"{folder} holds tokens of {made['name']}, whose {name} is not this checkpoint's: export again with its own "
                "episodes, or train from the checkpoint that played them"
            )
    if card["route"] == "exact" and card["chat_template_kwargs"] != dict(template_kwargs):
        raise ConfigError(
            f"{folder} was played with chat_template_kwargs {card['chat_template_kwargs']}, this job has "
            f"{dict(template_kwargs)}: the policy would be shown other prompts than it learns from (THINKING, TAU2_CONFIG)"
        )
    trained = card["tokens"]["trained"]
    return (
        f"{card['episodes']['written']} episodes, {trained} trained tokens, {card['route']} route: {card['steps']} steps of "
        f"{card['global_batch_size']}"
    )


def eval_config(path: Path, tau2: Mapping[str, object]) -> RowsFound:
    """Every dataset of slime's ``--eval-config``: its settings, its file, its tasks."""
    plan = load_plan(path, tau2=tau2)
    items = [item for dataset in plan.datasets for item in dataset.items]
    configs = [item.config for item in items]
    text = f"{path}: {len(plan.datasets)} datasets, {plan.episodes} episodes an evaluation; {_counted(configs)}"
    return RowsFound(text, _callers(configs, training=False), [(item.config, item.task_id) for item in items])


def distinct(callers: Iterable[Caller]) -> list[Caller]:
    """The first of those that call the same model at the same endpoint with the same key."""
    found: dict[tuple[str, ...], Caller] = {}
    for model, config in callers:
        simulator = config.simulator(model)
        found.setdefault((model, simulator.model, str(simulator.base_url), str(simulator.api_key_var)), (model, config))
    return list(found.values())


def _callers(configs: Iterable[Tau2Config], *, training: bool) -> list[Caller]:
    return distinct((model, config) for config in configs for model in models_of(config, training=training))


def _counted(configs: Iterable[Tau2Config]) -> str:
    counts = Counter(f"{config.domain}/{config.task_split}" for config in configs)
    return ", ".join(f"{count} {split}" for split, count in sorted(counts.items()))
