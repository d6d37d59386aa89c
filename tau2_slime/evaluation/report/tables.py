"""The tables of a run, as text in cells: the terminal, report.md and report.html show the same ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import fmean

from tau2_slime.evaluation.report.compliance import compliance_table
from tau2_slime.evaluation.report.table import Table
from tau2_slime.evaluation.statistics.baselines import NOTHING, TRANSFER
from tau2_slime.evaluation.statistics.estimates import Estimate, Scores
from tau2_slime.evaluation.statistics.summary import OWN_METRIC, Group, Summary
from tau2_slime.evaluation.store.records import Record
from tau2_slime.outcome import SUCCESS


def score_table(summary: Summary, *, brief: bool = False) -> Table:
    """One row per dataset, domain, user model and overall. ``brief``: what fits 80 columns."""
    ks = sorted({k for group in summary.groups for k in group.scores.pass_hat})
    most = max(ks, default=1)
    if_failures = not brief or summary.overall.scores.excluded > 0
    columns: list[tuple[str, Callable[[Group], str]]] = [
        ("", label),
        ("tasks", lambda g: str(g.scores.units)),
        ("pass^1", _pass_hat(1)),
    ]
    if brief:
        columns.append(("95%", lambda g: _interval(g.scores.pass_hat.get(1), "{:.2f}-{:.2f}")))
    else:
        columns.append(("95% interval", lambda g: _interval(g.scores.pass_hat.get(1))))
        columns.append(("± se", lambda g: decimal(e.stderr if (e := g.scores.pass_hat.get(1)) else None)))
    for k in [k for k in ks if k > 1][-1 if brief else 0 :]:
        columns.append((f"pass^{k}", _pass_hat(k)))
    if most > 1:
        columns.append((f"pass@{most}", lambda g: number(g.scores.pass_at.get(most))))
    columns.append(("excl.", lambda g: str(g.scores.excluded)))
    if if_failures:
        columns.append(("if failures", lambda g: decimal(g.scores.failures_as_zero)))
    columns.append(("nothing", lambda g: decimal(g.baselines.get(NOTHING))))
    columns.append(("transfer", lambda g: decimal(g.baselines.get(TRANSFER))))
    rows = [[cell(group) for _, cell in columns] for group in summary.groups]
    note = _score_note(summary, if_failures)
    return Table("Scores", [name for name, _ in columns], rows, note, emphasised=frozenset({len(rows) - 1}))


def _pass_hat(k: int) -> Callable[[Group], str]:
    return lambda group: number(group.scores.pass_hat.get(k))


def label(group: Group) -> str:
    """What a row is called: a dataset's name, or "domain: airline"."""
    return group.name if group.kind == "dataset" else f"{group.kind}: {group.name}"


def number(estimate: Estimate | None) -> str:
    """An estimate with a star if it leaves tasks out."""
    if estimate is None:
        return "-"
    return f"{estimate.value:.3f}" + ("*" if estimate.left_out else "")


def decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(estimate: Estimate | None, form: str = "{:.3f} to {:.3f}") -> str:
    return "-" if estimate is None else form.format(estimate.low, estimate.high)


def _score_note(summary: Summary, if_failures: bool) -> str:
    said = [
        "pass^k: all of k attempts succeed; pass@k: at least one does (unbiased). Intervals: 95%, tasks within domains.",
        "'excl.': attempts that failed because of the infrastructure or the user model, left out"
        + ("; 'if failures': pass^1 if they counted as failures." if if_failures else "."),
        "'nothing', 'transfer': doing nothing, or transferring to a human at once, on the same tasks.",
    ]
    if summary.domain_weighted is not None and any(g.kind == "domain" for g in summary.groups):
        said.append(
            f"'overall' counts every task of every dataset once; every domain once: {summary.domain_weighted:.3f}."
        )
    said.append(noise_words(summary.overall.scores))
    if any(e.left_out for g in summary.groups for e in g.scores.pass_hat.values()):
        said.append("*: some tasks have fewer usable attempts than k and are left out.")
    return " ".join(said)


def noise_words(scores: Scores) -> str:
    """The noise floor in words."""
    if scores.noise is None:
        return "With one attempt a task it is not known how much a repetition of this run would differ."
    if scores.noise.run == 0:
        return "Noise: none was seen, because the attempts of each task ended alike."
    return (
        f"Noise: if this run were repeated on the same tasks, pass^1 would differ by up to {scores.noise.floor:.3f} "
        "in 95% of cases."
    )


def pass_table(summary: Summary) -> Table:
    """Both meanings of pass@k, and pass^k, for every k, with intervals."""
    rows = []
    for group in summary.groups:
        for k, hat in group.scores.pass_hat.items():
            at = group.scores.pass_at[k]
            row = [label(group) if k == min(group.scores.pass_hat) else "", str(k), number(hat), _interval(hat)]
            rows.append([*row, number(at), _interval(at), decimal(group.scores.pass_first[k]), str(hat.tasks)])
    columns = ["", "k", "pass^k", "95% interval", "pass@k", "95% interval", "any of first k", "tasks"]
    note = "pass@k is the unbiased estimate over all k-subsets of the attempts; 'any of first k' looks at the first k only."
    return Table("pass^k and pass@k", columns, rows, note)


def ending_table(summary: Summary) -> Table:
    endings = sorted(summary.endings().items(), key=lambda pair: (pair[0][0], -pair[1]))
    total = sum(count for _, count in endings)
    rows = [[*names, str(count), f"{count / total:.1%}"] for names, count in endings]
    return Table("How episodes ended", ["outcome", "ended by", "blame", "episodes", "share"], rows, text_columns=3)


def reason_table(summary: Summary) -> Table | None:
    reasons = summary.reasons()
    if not reasons:
        return None
    rows = [[reason, str(count)] for reason, count in reasons.most_common(20)]
    return Table(
        "Excluded episodes",
        ["reason", "episodes"],
        rows,
        "Each was tried again before it was excluded; --retry-excluded plays them once more.",
    )


def unearned_table(summary: Summary) -> Table | None:
    """Rewards that may have been paid for words, or for nothing, by `episode.telemetry`'s counts."""
    paid = [r.get("telemetry", {}) for r in summary.played if not r["excluded"] and (r["reward"] or 0.0) >= SUCCESS]
    kinds = {"nothing": "called no tool", "transfer": "only transferred the user", "recitation": "recited numbers"}
    counts = {words: sum(found.get(f"unearned/{kind}", 0.0) > 0 for found in paid) for kind, words in kinds.items()}
    rows = [[words, str(count), f"{count / len(paid):.1%}"] for words, count in counts.items() if count]
    note = (
        "They count like all others: some tasks want nothing done. Read these conversations before you train on them."
    )
    return Table("Solved without work", ["the agent", "episodes", "of the solved"], rows, note) if rows else None


def tool_table(summary: Summary) -> Table | None:
    tools = summary.tools()
    if not tools:
        return None
    rows = [
        [name, str(use.calls), str(use.errors), f"{use.errors / use.calls:.1%}", str(use.malformed)]
        for name, use in tools.items()
    ]
    return Table("Tool calls of the policy", ["tool", "calls", "errors", "share", "malformed"], rows)


def length_table(summary: Summary) -> Table:
    rows = []
    for dataset in summary.manifest["protocol"]:
        records = [r for r in summary.played if r["dataset"] == dataset and not r["excluded"]]
        if records:
            rows.append([dataset, *_lengths(records)])
    columns = ["", "agent turns", "user turns", "tool errors", "sampled tokens", "prompt tokens", "context tokens"]
    return Table("Turns and tokens, mean per episode", columns, rows)


def _lengths(records: Sequence[Record]) -> list[str]:
    means = [fmean(r["stats"][name] for r in records) for name in ("agent_turns", "user_turns", "agent_errors")]
    means += [fmean(r["tokens"][name] for r in records) for name in ("sampled", "prompt", "context")]
    return [f"{mean:,.1f}" for mean in means]


def metric_table(summary: Summary) -> Table | None:
    """The metrics of one's own, for every row of the score table that has them."""
    rows = [
        [label(group) if i == 0 else "", name.removeprefix(OWN_METRIC), f"{found.mean:.4g}", str(found.episodes)]
        for group in summary.groups
        for i, (name, found) in enumerate(group.metrics.items())
    ]
    if not rows:
        return None
    note = "Over the episodes that have the metric and are not excluded."
    return Table("Your own metrics, mean per episode", ["", "metric", "mean", "episodes"], rows, note, text_columns=2)


def cost_table(summary: Summary) -> Table | None:
    if not summary.bills:
        return None
    rows = [
        [
            *(model, role, str(bill.calls), str(bill.failed), f"{bill.prompt_tokens:,}", f"{bill.reply_tokens:,}"),
            "price unknown" if bill.unpriced else f"${bill.cost:.4f}",
        ]
        for (role, model), bill in sorted(summary.bills.items())
    ]
    total = sum(bill.cost for bill in summary.bills.values())
    rows.append(["all", "", "", "", "", "", f"${total:.4f}"])
    columns = ["model", "role", "calls", "failed", "prompt tokens", "reply tokens", "cost"]
    assumed = sum(bill.assumed for bill in summary.bills.values())
    note = f"${assumed:.4f} of it is an estimate, for calls whose answer never came." if assumed else ""
    return Table("Cost", columns, rows, note, text_columns=2, emphasised=frozenset({len(rows) - 1}))


def user_table(summary: Summary) -> Table:
    """How often the simulators did what no customer would, by dataset. Scripted users are not examined."""
    rows = []
    for dataset, described in summary.manifest["protocol"].items():
        stats = [r["stats"] for r in summary.played if r["dataset"] == dataset and not r["excluded"]]
        flaws = Counter(flaw for s in stats for flaw in s.get("user_flaws", ()))
        rows += [
            [dataset, described["user_model"], flaw, str(count), f"{count / len(stats):.1%}"]
            for flaw, count in flaws.most_common()
        ]
    note = "Episodes with at least one such message, found by its words alone; they count like all others."
    return Table(
        "Flaws of the user simulators", ["", "user model", "flaw", "episodes", "share"], rows, note, text_columns=3
    )


def all_tables(summary: Summary) -> list[Table]:
    """Every table that has rows, the scores first."""
    found = [score_table(summary), pass_table(summary), ending_table(summary), reason_table(summary)]
    found += [
        unearned_table(summary),
        compliance_table(summary),
        tool_table(summary),
        length_table(summary),
        user_table(summary),
        metric_table(summary),
        cost_table(summary),
    ]
    return [table for table in found if table is not None and table.rows]
