"""slime's debug dump of ledgers: SFT on exactly the tokens and masks of the episodes, with nothing rendered again.

``--load-debug-rollout-data DIR/{rollout_id}.pt`` gives slime the samples of one optimizer step per file. A ``.pt`` file of
plain data is a zip with a pickle, so that writing one needs no torch.
"""

from __future__ import annotations

import io
import pickle
import random
import zipfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tau2_slime.export.episodes import Episode
    from tau2_slime.tokens.template.chat_template import ChatTemplate


def torch_file(value: object) -> bytes:
    """``value`` as ``torch.save`` writes it; ``torch.load`` and `inspector.torch_file` read it.

    ``value``: numbers, texts, None, lists and dicts; no tensors.
    """
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        parts = {"data.pkl": pickle.dumps(value, protocol=2), "byteorder": b"little", "version": b"3\n"}
        for name, data in parts.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), data)  # of 1980: equal content gives equal bytes
    return out.getvalue()


def step_count(episodes: int, *, batch: int, epochs: int) -> int:
    """Optimizer steps of ``batch`` episodes for at least ``epochs`` passes."""
    return -(-episodes * epochs // batch)


def steps(episodes: Sequence[Episode], *, batch: int, epochs: int, seed: int) -> Iterator[list[Episode]]:
    """The ``batch`` episodes of each optimizer step, over ``epochs`` passes in random order.

    The last step is filled from one more pass, because slime takes steps of one size.
    """
    if not episodes:
        return
    shuffle = random.Random(seed)
    stream: list[Episode] = []
    wanted = step_count(len(episodes), batch=batch, epochs=epochs) * batch
    while len(stream) < wanted:
        stream += shuffle.sample(list(episodes), len(episodes))
    yield from (stream[start : start + batch] for start in range(0, wanted, batch))


def dumped_step(step: int, episodes: Sequence[Episode], template: ChatTemplate) -> dict[str, Any]:
    """What slime's ``load_debug_rollout_data`` reads for rollout number ``step``."""
    first = step * len(episodes)
    samples = [_sample(first + i, episode, template) for i, episode in enumerate(episodes)]
    return {"rollout_id": step, "samples": samples}


def _sample(index: int, episode: Episode, template: ChatTemplate) -> dict[str, Any]:
    """The fields of ``Sample.to_dict``; those that are left out get slime's defaults."""
    one = episode.trajectory
    ledger = one.ledger
    assert ledger is not None
    task = {"domain": one.domain, "task_split": one.task_split, "task_id": one.task_id}
    return {
        "index": index,
        "group_index": index,
        "prompt": f"{one.domain}/{one.task_split}/{one.task_id}",
        "tokens": list(ledger["tokens"]),
        "response": template.decode(list(ledger["tokens"][one.prompt_length :])),
        "response_length": len(ledger["loss_mask"]),
        "loss_mask": list(ledger["loss_mask"]),
        "reward": one.reward,
        "status": one.status or "completed",
        "metadata": {**task, "raw_reward": one.reward, "episode": episode.name},
    }
