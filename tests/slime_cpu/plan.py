"""What to play, and the command line and files that make slime play it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GENERATE = "tau2_slime.generate_with_tau2.generate"
WATCHED = "tests.slime_cpu.watch.generate"
TASKS = ("create_task_1", "update_task_1", "impossible_task_1", "update_task_with_message_history")


def package_of(folder: str) -> str:
    """``miles`` if ``folder`` (a checkout, or what miles is installed into) holds it, else ``slime``."""
    return "miles" if Path(folder, "miles", "rollout").is_dir() else "slime"


@dataclass
class Plan:
    """One run of one slime checkout, or of miles."""

    slime: str
    folder: str
    """For data, configuration and dumps; must exist."""
    rollouts: int = 2
    evaluate: bool = False
    eval_config: str = ""
    """An evaluation file to use instead of one that is written for the run."""
    eval_beside: bool = False
    """Evaluate while the fully-async worker goes on in its own loop."""
    flags: list[str] = field(default_factory=list)
    """slime's own, on top of those that every run has."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables that slime or miles reads."""
    groups: int = 3
    group_size: int = 2
    tasks: list[str] = field(default_factory=lambda: list(TASKS))
    tau2: dict[str, Any] = field(default_factory=dict)
    user_over_http: bool = False
    """The user answers through litellm and the server instead of inside the process."""
    server: dict[str, Any] = field(default_factory=dict)
    """`server.Options` without the checkpoint."""
    update_every: float = 0.0
    """Seconds between weight updates while slime rolls out; 0: one after each rollout, as a synchronous trainer does."""
    pause_mode: str = "abort"
    """How those updates pause the engine: sglang's ``abort``, ``retract`` or ``in_place``."""
    update_between: bool = True
    reload_buffer: bool = False
    """Between rollouts, what waits in slime's buffer is pickled and read again, as from a file."""
    keep_dumps: bool = False
    """Leave slime's dumps in `folder`."""
    watched: bool = False
    patience: float = 240.0
    """Seconds after which a rollout counts as hanging."""

    @property
    def package(self) -> str:
        """``slime``, or ``miles`` where the folder holds that."""
        return package_of(self.slime)

    def command_line(self, router: str, checkpoint: str) -> list[str]:
        """slime's arguments; writes what they name."""
        folder, plan = Path(self.folder), self
        host, port = router.removeprefix("http://").split(":")
        rows = [{"prompt": task, "metadata": {"task_id": task}} for task in plan.tasks]
        (folder / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        tau2 = {"domain": "mock", "task_split": "base", "user_model": "scripted", "drift_rate": 1.0, **plan.tau2}
        if plan.user_over_http:
            tau2.update(user_model="openai/scripted", user_base_url=f"{router}/v1")
        (folder / "tau2.yaml").write_text(json.dumps({"tau2": tau2}))
        generate = WATCHED if plan.watched else GENERATE
        argv = [
            *("--hf-checkpoint", checkpoint, "--prompt-data", str(folder / "tasks.jsonl"), "--input-key", "prompt"),
            *("--metadata-key", "metadata", "--custom-config-path", str(folder / "tau2.yaml")),
            *("--custom-generate-function-path", generate, "--sglang-router-ip", host, "--sglang-router-port", port),
            *("--rollout-batch-size", str(plan.groups), "--n-samples-per-prompt", str(plan.group_size)),
            *("--rollout-max-response-len", "512", "--rollout-max-context-len", "16000"),
            *("--num-rollout", str(max(1, plan.rollouts)), "--rollout-num-gpus", "1"),
            *("--rollout-num-gpus-per-engine", "1", "--actor-num-gpus-per-node", "1"),
            *("--save-debug-rollout-data", str(folder / "{rollout_id}.pt")),
        ]
        if plan.eval_config:
            argv += ["--eval-config", plan.eval_config]
        elif plan.evaluate or plan.eval_beside:
            datasets = [
                {
                    **{
                        "name": name,
                        "path": f"{folder}/tasks.jsonl",
                        "input_key": "prompt",
                        "metadata_key": "metadata",
                    },
                    **{"custom_generate_function_path": generate, "metadata_overrides": {"max_turns": turns}},
                }
                for name, turns in (("mock", 30), ("mock-short", 2))
            ]
            defaults = {"n_samples_per_eval_prompt": 2, "max_response_len": 512, "temperature": 0.5}
            (folder / "eval.yaml").write_text(json.dumps({"eval": {"defaults": defaults, "datasets": datasets}}))
            argv += ["--eval-config", str(folder / "eval.yaml")]
        return [*argv, *plan.flags]
