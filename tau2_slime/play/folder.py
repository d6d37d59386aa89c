"""The folder of a played episode: that of a rollout of one episode, written anew after every message.

So whatever happens to the process or the terminal, the episode so far can be looked at, and be taken up again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tau2_slime.errors import CannotResume, ConfigError
from tau2_slime.observe.rollout_folder import PLAN, SAMPLES, TRAJECTORIES, Job
from tau2_slime.runtime.files import json_lines, write_atomically
from tau2_slime.slime_adapter import resume
from tau2_slime.slime_adapter.sample import StandaloneSample, fill_sample, is_interrupted

if TYPE_CHECKING:
    from tau2_slime.episode.interrupted import EpisodeIdentity, Saved
    from tau2_slime.episode.result import InteractionResult
    from tau2_slime.tokens.template.chat_template import ChatTemplate


@dataclass
class PlayFolder:
    """Where the one episode is kept."""

    path: Path
    job: Job
    policy: dict[str, Any]
    """Who plays the agent, as rollout.json keeps it: ``kind``, ``hf_checkpoint``."""
    settings: dict[str, Any]
    """The settings, as rollout.json keeps them."""
    sampling: dict[str, Any]
    """How the agent is sampled, as rollout.json keeps it."""
    template: ChatTemplate | None = None
    """Decodes the tokens; None where the agent has none."""

    def begin(self) -> None:
        """Write what is played, unless the folder has an episode.

        Raises:
            ConfigError: it has another one, or one that is over.
        """
        there, plan, other = self._sample(), self._plan(), "name another folder with --output-dir"
        if there is None and not (self.path / PLAN).exists():
            described = {
                "policy": self.policy,
                "sampling": self.sampling,
                "settings": self.settings,
                "episodes": [asdict(self.job)],
            }
            self._write(PLAN, described, indent=1)
            embedded = self.policy["kind"] == "embedded"
            self._write("summary.json", {"hf_checkpoint": self.policy.get("hf_checkpoint"), "embedded": embedded})
        elif plan is None or plan.get("episodes") != [asdict(self.job)]:
            raise ConfigError(f"{self.path} holds another run already; {other}")
        elif plan.get("policy") != self.policy:
            raise ConfigError(f"{self.path}: the agent was {plan.get('policy')}, now it is {self.policy}; {other}")
        elif there is not None and not is_interrupted(there):
            raise ConfigError(f"{self.path} holds an episode that is over; {other}")

    def saved(self, identity: EpisodeIdentity) -> Saved | None:
        """What was left of the episode; None if nothing was.

        Raises:
            ConfigError: it was played by others, or its files are damaged.
        """
        sample = self._sample()
        if sample is None:
            return None
        try:
            return resume.read(sample, identity)
        except CannotResume as error:
            raise ConfigError(f"{self.path}: {error}; name another folder with --output-dir") from error

    def keep(self, result: InteractionResult) -> None:
        """Write the episode as it is. Raises OSError: the disk is full; what was there before stays."""
        job = self.job
        sample = StandaloneSample(
            index=job.index,
            group_index=job.group,
            prompt=f"{job.domain}/{job.split}/{job.task_id}",
            metadata={"domain": job.domain, "task_split": job.split, "task_id": job.task_id},
        )
        fill_sample(sample, result, template=self.template)
        self._write(TRAJECTORIES, {"index": job.index, "group": job.group, **result.to_dict()})
        self._write(SAMPLES, sample.row())

    def _plan(self) -> dict[str, Any] | None:
        """What rollout.json says; None if it says nothing."""
        try:
            return dict(json.loads((self.path / PLAN).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def _sample(self) -> StandaloneSample | None:
        try:
            rows = list(json_lines(self.path / SAMPLES))
            return StandaloneSample.of_row(rows[0] or {}) if rows else None
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{self.path / SAMPLES} is damaged; name another folder with --output-dir") from error

    def _write(self, name: str, content: dict[str, Any], *, indent: int | None = None) -> None:
        write_atomically(self.path / name, json.dumps(content, ensure_ascii=False, default=str, indent=indent) + "\n")
