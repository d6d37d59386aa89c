"""Episodes -> one flat mapping of scalars, named without a prefix. `docs/hooks.md` lists the names and how to read them."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable, Sequence

from tau2_slime.episode.telemetry import telemetry_metrics
from tau2_slime.observe.episodes import Episode
from tau2_slime.outcome import Blame, Flaw, Termination
from tau2_slime.policy_rules.check import BROKEN, WRITES
from tau2_slime.tokens.calls.types import CallStatus


def episode_metrics(episodes: Sequence[Episode]) -> dict[str, float]:
    """Metrics of a rollout or a dataset. Empty without episodes; a mean over no cases is left out."""
    if not episodes:
        return {}
    valid = [episode for episode in episodes if not episode.excluded]
    out: dict[str, float] = {
        "samples": float(len(episodes)),
        "excluded": _share(e.excluded for e in episodes),
        **{f"excluded_{b}": float(sum(e.excluded and e.blame == b for e in episodes)) for b in _EXCLUDING},
        **{f"termination/{t}": _share(e.termination == t for e in episodes) for t in Termination},
        **{f"blame/{b}": _share(e.blame == b for e in episodes) for b in Blame},
    }
    out |= _mean("success", (e.success for e in valid if e.reward is not None))
    out |= _mean("reward", (e.reward for e in valid))
    out |= _mean("trained_reward", (e.trained_reward for e in valid))
    out |= _by("domain", episodes, lambda e: e.domain)
    out |= _by("user", [e for e in episodes if e.user_model], lambda e: e.user_model)
    out |= _conversation(valid)
    out |= _tool_calls(episodes)
    out |= {_part_by_part(name): value for name, value in telemetry_metrics(e.telemetry for e in valid).items()}
    out |= _policy(valid)
    out |= _drift(episodes)
    out |= _users(episodes)
    out |= _times(episodes)
    out |= _weights(episodes)
    return out


def tag(name: str) -> str:
    """``name`` as one part of a metric's name: trackers read a slash as a folder and refuse other characters.

    >>> tag("openai/gpt-4o:free")
    'openai_gpt-4o_free'
    """
    return re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII).strip("_") or "unknown"


def _part_by_part(name: str) -> str:
    """`tag` for each part of a telemetry name: the model may have invented the tool's name in it."""
    return "/".join(tag(part) for part in name.split("/"))


_EXCLUDING = (Blame.USER, Blame.INFRASTRUCTURE)


def _conversation(episodes: Sequence[Episode]) -> dict[str, float]:
    """Turns and tokens, over episodes that are not excluded: the length of one that a failure cut short means nothing."""
    out: dict[str, float] = {}
    for name, key in (("turns/agent", "agent_turns"), ("turns/user", "user_turns"), ("turns/steps", "steps")):
        out |= _spread(name, [e.number(key) for e in episodes])
    out |= _spread("tokens/prompt", [e.prompt_tokens for e in episodes])
    out |= _spread("tokens/sampled", [e.sampled_tokens for e in episodes])
    out |= _spread("tokens/context", [e.context_tokens for e in episodes])
    out |= _mean("errors/agent", (e.number("agent_errors") for e in episodes))
    out |= _mean("errors/user", (e.number("user_errors") for e in episodes))
    joined = _summed(episodes, "junctions")
    out |= {f"junction/{tag(kind)}": n / sum(joined.values()) for kind, n in joined.items() if sum(joined.values())}
    return out


def _tool_calls(episodes: Sequence[Episode]) -> dict[str, float]:
    calls = _summed(episodes, "tool_calls")
    total = sum(calls.values())
    out = _mean("tool_calls/per_episode", (sum(e.counts("tool_calls").values()) for e in episodes))
    if total:
        names = {str(status) for status in CallStatus} | set(calls)
        out |= {f"tool_calls/{tag(name)}": calls.get(name, 0.0) / total for name in sorted(names)}
    return out


def _policy(episodes: Sequence[Episode]) -> dict[str, float]:
    """How often an episode's writes break each rule of the policy."""
    rules = _summed(episodes, "policy").items()
    return {
        f"policy/broken/{tag(rule)}": n / len(episodes) for rule, n in sorted(rules) if rule not in (WRITES, BROKEN)
    }


def _drift(episodes: Sequence[Episode]) -> dict[str, float]:
    measured = [e for e in episodes if e.counts("drift")]
    out = {
        "drift/episodes": float(len(measured)),
        "neutralised": sum(e.number("neutralised") for e in episodes),
        "round_trip_failures": sum(e.number("round_trip_failures") for e in episodes),
    }
    total = _summed(measured, "drift")
    if total.get("turns"):
        out["drift/retokenised_turns"] = total.get("retokenised_turns", 0.0) / total["turns"]
    sampled = sum(e.sampled_tokens for e in measured)
    if sampled:
        out["drift/retokenised_tokens"] = total.get("retokenised_tokens", 0.0) / sampled
    if measured:
        out["drift/environment_mismatches"] = total.get("environment_mismatches", 0.0)
    return out


def _users(episodes: Sequence[Episode]) -> dict[str, float]:
    """The user simulators: seconds and retries a call, US dollars in all, together and for each model."""
    out: dict[str, float] = {}
    talking = [e for e in episodes if e.user_model]
    for prefix, chosen in [("user_model", talking), *_groups("user", talking, lambda e: e.user_model)]:
        calls = sum(e.number("user_calls") for e in chosen)
        if not chosen:
            continue
        out[f"{prefix}/cost"] = sum(e.number("user_cost") for e in chosen)
        if calls:
            out[f"{prefix}/latency"] = sum(e.number("user_time") for e in chosen) / calls
            out[f"{prefix}/retries_per_call"] = sum(e.number("user_retries") for e in chosen) / calls
        spoken = [e for e in chosen if e.number("user_turns") and e.number("user_calls")]
        if spoken:
            out |= {f"{prefix}/flaw/{f}": _share(e.counts("user_flaws").get(f, 0) > 0 for e in spoken) for f in Flaw}
            out[f"{prefix}/replaced"] = _share(len(e.counts("user_played")) > 1 for e in spoken)
        if calls:
            faults = _summed(chosen, "user_faults")
            out |= {f"{prefix}/fault/{tag(kind)}": count / calls for kind, count in faults.items()}
            out[f"{prefix}/waited"] = sum(e.number("user_waited") for e in chosen) / calls
        out[f"{prefix}/prompt_tokens"] = sum(e.number("user_prompt_tokens") for e in chosen)
        out[f"{prefix}/completion_tokens"] = sum(e.number("user_completion_tokens") for e in chosen)
    if "user_model/cost" in out:
        out["user_model/cost_per_episode"] = out["user_model/cost"] / len(talking)
    return out


def _times(episodes: Sequence[Episode]) -> dict[str, float]:
    out = _spread("time/non_generation", [e.non_generation_time for e in episodes])
    out |= _spread("time/generation", [e.number("generation_time") for e in episodes])
    out |= _spread("time/total", [e.number("total_time") for e in episodes])
    return out


def _weights(episodes: Sequence[Episode]) -> dict[str, float]:
    """Aborts and weight versions: an episode sampled by several versions of the weights is partly off-policy."""
    distinct = [len(set(e.weight_versions)) for e in episodes if e.weight_versions]
    out = {
        "resumed_episodes": _share(e.number("resumes") > 0 for e in episodes),
        "restarted_episodes": _share(e.restarted for e in episodes),
        **_mean("resumed_turns", (e.number("resumed_aborts") for e in episodes)),
        **_mean("engine_retries", (e.number("engine_retries") for e in episodes)),
    }
    if distinct:
        out |= _spread("weight_versions", distinct)
        out["mixed_weights"] = _share(n > 1 for n in distinct)
    return out


def _by(kind: str, episodes: Sequence[Episode], key: Callable[[Episode], str]) -> dict[str, float]:
    out: dict[str, float] = {}
    for prefix, chosen in _groups(kind, episodes, key):
        out[f"{prefix}/samples"] = float(len(chosen))
        out[f"{prefix}/excluded"] = _share(e.excluded for e in chosen)
        out |= _mean(f"{prefix}/reward", (e.reward for e in chosen))
    return out


def _groups(kind: str, episodes: Iterable[Episode], key: Callable[[Episode], str]) -> list[tuple[str, list[Episode]]]:
    found: dict[str, list[Episode]] = {}
    for episode in episodes:
        found.setdefault(f"{kind}/{tag(key(episode))}", []).append(episode)
    return sorted(found.items())


def _summed(episodes: Iterable[Episode], name: str) -> dict[str, float]:
    out: dict[str, float] = {}
    for episode in episodes:
        for key, value in episode.counts(name).items():
            out[key] = out.get(key, 0.0) + value
    return out


def _share(flags: Iterable[bool]) -> float:
    return statistics.fmean(flags)


def _mean(name: str, values: Iterable[float | None]) -> dict[str, float]:
    known = [value for value in values if value is not None]
    return {name: statistics.fmean(known)} if known else {}


def _spread(name: str, values: Sequence[float]) -> dict[str, float]:
    return {f"{name}/mean": statistics.fmean(values), f"{name}/max": float(max(values))} if values else {}
