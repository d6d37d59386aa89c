"""A run's scores in Weights & Biases: one metric per dataset and k, so that user models stay apart, and the report."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.statistics.estimates import Scores
from tau2_slime.evaluation.statistics.summary import Summary
from tau2_slime.evaluation.store.manifest import protocol_digest


def metrics(summary: Summary) -> dict[str, float]:
    """``eval/<dataset>/pass@<k>`` and ``eval/<dataset>/pass^<k>``, each with ``/low`` and ``/high``; so for every group.

    The metrics of one's own are ``eval/<dataset>/custom/<name>``.
    """
    out: dict[str, float] = {}
    for group in summary.groups:
        prefix = f"eval/{group.name}" if group.kind == "dataset" else f"eval/{group.kind}/{group.name}"
        if group.kind == "overall":
            prefix = "eval/overall"
        out |= {f"{prefix}/{name}": value for name, value in _score_metrics(group.scores).items()}
        out |= {f"{prefix}/baseline/{kind}": value for kind, value in group.baselines.items() if value is not None}
        out |= {f"{prefix}/{name}": found.mean for name, found in group.metrics.items()}
    out["eval/cost"] = sum(bill.cost for bill in summary.bills.values())
    return out


def _score_metrics(scores: Scores) -> dict[str, float]:
    out: dict[str, float] = {"excluded": float(scores.excluded)}
    for family, estimates in (("pass@", scores.pass_at), ("pass^", scores.pass_hat)):
        for k, estimate in estimates.items():
            out[f"{family}{k}"] = estimate.value
            out[f"{family}{k}/low"], out[f"{family}{k}/high"] = estimate.low, estimate.high
    if scores.reward is not None:
        out["reward"] = scores.reward.value
    return out


def require() -> ModuleType:
    """The wandb module.

    Raises:
        ConfigError: it is not installed, or has no key for what it shall send.
    """
    try:
        import wandb
    except ImportError:
        raise ConfigError("--wandb-project needs wandb: pip install 'tau2-slime[wandb]'") from None
    if os.environ.get("WANDB_MODE") not in ("offline", "disabled", "dryrun") and not wandb.api.api_key:
        raise ConfigError(
            "--wandb-project needs a key: set WANDB_API_KEY, run `wandb login`, or set WANDB_MODE=offline"
        )
    return wandb


def log(summary: Summary, folder: Path, project: str) -> None:
    """Log into ``project`` as one run, with the files of ``folder`` as an artifact. Raises as `require` does."""
    wandb = require()
    name = f"{summary.manifest['subject']['name']} {protocol_digest(summary.manifest)}"
    run = wandb.init(project=project, name=name, job_type="eval", dir=str(folder), config=dict(summary.manifest))
    try:
        found = metrics(summary)
        run.log(found)
        run.summary.update(found)
        artifact = wandb.Artifact(f"tau2-eval-{protocol_digest(summary.manifest)}", type="evaluation")
        for file in ("report.html", "report.md", "summary.json", "manifest.json", "simulations.jsonl"):
            if (folder / file).exists():
                artifact.add_file(str(folder / file))
        run.log_artifact(artifact)
    finally:
        run.finish()
