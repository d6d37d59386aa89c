"""One run of reinforcement learning, in a process of its own: rollout, advantages, loss, weight push, next rollout.

    python -m benchmarks.learning.run RUN_FOLDER CHECKPOINT SLIME_CHECKOUT    # settings.json lies in RUN_FOLDER

After every step the folder holds the weights, the optimizer and one more line of ``curve.jsonl``. A run that was killed goes
on after its last line.
"""

from __future__ import annotations

import json
import math
import os
import random
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean

import torch
from transformers import AutoTokenizer, Qwen3ForCausalLM

from benchmarks.learning import engine, slime_code, tiny_model
from benchmarks.learning.rows import Row, difference, of_samples, read_curve
from benchmarks.learning.settings import Settings
from benchmarks.learning.trainer import Episodes, Trainer

MOST_SHOWN = 12
"""Tasks in a progress line."""


class Run:
    """The parts of a run between two steps."""

    def __init__(self, settings: Settings, servers: engine.Engine, checkpoint: Path, folder: Path, slime: str) -> None:
        self.settings, self.folder = settings, folder
        self._engine = servers
        loss = slime_code.load_loss(slime)
        self._rollouts = slime_code.Rollouts(
            slime, slime_code.command_line(settings, servers.router, checkpoint, folder)
        )
        self._tokenizer = AutoTokenizer.from_pretrained(str(checkpoint))
        model = Qwen3ForCausalLM.from_pretrained(str(checkpoint), dtype=torch.float32).to(settings.device)
        self._trainer = Trainer(loss, self._rollouts.args, model)
        self.stop_worker = self._rollouts.worker_ended

    # ---- one step ----------------------------------------------------------------------------------------------------

    def step(self, number: int) -> Row:
        """Roll out, train, push. What happened, as a line of the curve."""
        settings, row = self.settings, Row(step=number)
        if number == 0:
            row["evaluation"] = self._rollouts.evaluate(settings.final_attempts)
        elif settings.eval_every and number % settings.eval_every == 0:
            row["evaluation"] = self._rollouts.evaluate(settings.eval_attempts)
        begin = time.monotonic()
        data = self._rollouts.generate(number)
        samples = [sample.to_dict() for group in self._rollouts.samples for sample in group]
        row |= of_samples(samples, str(number))
        row["hooks"] = {
            name.removeprefix("rollout/tau2/"): float(value)
            for name, value in self._rollouts.metrics.items()
            if name in ("rollout/tau2/official_reward", "rollout/tau2/excluded_samples")
        }
        row["rollout_seconds"] = time.monotonic() - begin
        begin = time.monotonic()
        episodes = Episodes.from_slime(data)
        places = [int(place) for place in data["partition"]]
        scores = self._trainer.score(self._trainer.model, episodes)
        row["difference"] = difference(
            [samples[place] for place in places], [one.tolist() for one in scores], str(number)
        )
        _put_fault(episodes, settings, places, [len(group) for group in self._rollouts.samples])
        row["rate"] = settings.rate_at(number)
        told = self._trainer.train(episodes, row["rate"], scores)
        row["train"], row["train_last"] = told[0], told[-1]
        row["train_seconds"] = time.monotonic() - begin
        begin = time.monotonic()
        self._save(number)
        self._engine.push(self.folder / "weights", str(number + 1), running=settings.mode == "async")
        row["push_seconds"] = time.monotonic() - begin
        return row

    def last_evaluation(self) -> Row:
        """The line after the last step."""
        return Row(step=self.settings.steps, evaluation=self._rollouts.evaluate(self.settings.final_attempts))

    # ---- going on after a kill ---------------------------------------------------------------------------------------

    def _save(self, number: int) -> None:
        tiny_model.save(self.folder / "weights", self._trainer.model, self._tokenizer)
        state = {
            "step": number,
            "model": self._trainer.model.state_dict(),
            "optimizer": self._trainer.optimizer.state_dict(),
            "random": (random.getstate(), torch.get_rng_state()),
        }
        torch.save(state, self.folder / "state.part")
        (self.folder / "state.part").replace(self.folder / "state.pt")

    def resume(self, steps_done: int) -> None:
        """Go on after ``steps_done`` steps: the state is of the last of them, or of the next if its line was not written."""
        state = torch.load(self.folder / "state.pt", weights_only=False)
        self._trainer.model.load_state_dict(state["model"])
        self._trainer.optimizer.load_state_dict(state["optimizer"])
        random.setstate(state["random"][0])
        torch.set_rng_state(state["random"][1])
        tiny_model.save(self.folder / "weights", self._trainer.model, self._tokenizer)
        self._engine.push(self.folder / "weights", str(steps_done), running=False)


def _put_fault(episodes: Episodes, settings: Settings, places: list[int], groups: list[int]) -> None:
    """Put the fault of ``settings.control`` into ``episodes``.

    Args:
        places: of each episode in the rollout; slime hands them over in an order of its own.
        groups: sizes of the rollout's groups, in its order.
    """
    if settings.control == "context":
        episodes.loss_masks = [torch.ones_like(mask) for mask in episodes.loss_masks]
    elif settings.control == "shift":
        episodes.rollout_log_probs = [torch.roll(values, 1) for values in episodes.rollout_log_probs]
    elif settings.control == "shuffle":
        at = {place: index for index, place in enumerate(places)}
        start = 0
        for size in groups:
            members = [at[place] for place in range(start, start + size) if place in at]
            drawn = [episodes.rewards[index] for index in members]
            random.shuffle(drawn)
            for index, reward in zip(members, drawn, strict=True):
                episodes.rewards[index] = reward
            start += size


def describe(row: Row) -> str:
    """A progress line."""
    evaluation = row.get("evaluation")
    parts = [f"step {row['step']:3}"]
    if "reward" in row:
        spread = math.sqrt(row["reward"] * (1 - row["reward"]) / max(1, row["episodes"]))
        told = row["train"]
        parts += [
            f"reward {row['reward']:.2f} ± {1.96 * spread:.2f}",
            "by task " + " ".join(f"{value:.2f}" for value in row["by_task"].values()),
            *(
                [f"entropy {told['entropy_loss']:.3f}"] if told["entropy_loss"] else []
            ),  # miles computes none for the log
            f"length {row['response_length']:.0f}",
            f"gradient {told['grad_norm']:.2f}",
            f"weights {','.join(row['weight_versions'])} ({row['off_policy_share']:.0%} off-policy)",
            f"log-probs differ by {row['difference']:.1e}",
            f"{row['rollout_seconds']:.0f} + {row['train_seconds']:.0f} + {row['push_seconds']:.0f} s",
        ]
    if evaluation:
        parts.append("evaluation " + " ".join(f"{k}={value:.2f}" for k, value in _shown(evaluation).items()))
    return ", ".join(parts)


def _shown(evaluation: dict[str, list[float]]) -> dict[str, float]:
    """The mean reward of each task; of each dataset where there are more than a line can hold."""
    if len(evaluation) <= MOST_SHOWN:
        return {task: fmean(rewards) for task, rewards in sorted(evaluation.items())}
    datasets: dict[str, list[float]] = {}
    for task, rewards in evaluation.items():
        datasets.setdefault(task.partition("/")[0], []).append(fmean(rewards))
    return {f"{dataset} ({len(tasks)} tasks)": fmean(tasks) for dataset, tasks in sorted(datasets.items())}


def main(folder: Path, checkpoint: Path, slime: str) -> None:
    """Carry out the run that ``folder/settings.json`` describes, or what is left of it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the servers are stopped on the way out
    given = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    router = given.pop("router", None)
    settings = Settings(**{key: tuple(value) if isinstance(value, list) else value for key, value in given.items()})
    random.seed(settings.seed)
    torch.manual_seed(settings.seed)
    torch.set_num_threads(1)  # small matrices: threads that wait for each other cost eight times as much
    rows = read_curve(folder)
    if len(rows) > settings.steps:
        return
    with ExitStack() as stack:
        servers = engine.named(router) if router else stack.enter_context(engine.serving(checkpoint, folder))
        run = Run(settings, servers, checkpoint, folder, slime)
        if rows:
            run.resume(len(rows))
        else:
            servers.push(checkpoint, "0", running=False)
        stack.enter_context(run.stop_worker())
        with (folder / "curve.jsonl").open("w", encoding="utf-8") as curve:
            for row in rows:
                curve.write(json.dumps(row) + "\n")
            for number in range(len(rows), settings.steps + 1):
                row = run.step(number) if number < settings.steps else run.last_evaluation()
                curve.write(json.dumps(row) + "\n")
                curve.flush()
                print(describe(row), flush=True)


if __name__ == "__main__":
    os.environ.update(TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    sys.stdout.flush()
    os._exit(0)  # slime's rollout leaves threads behind
