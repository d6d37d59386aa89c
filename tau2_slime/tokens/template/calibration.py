"""Start-up proof that a chat template can be used token-exactly, in 25 to 75 ms.

`calibration_cases` has conversations that end in an assistant turn, each with what the environment adds to it: one battery
for templates that tell tools, one for actions in plain text.
The delta must be what the template writes at the end of the whole conversation, and its ids must be the same apart from the
turn and together with it. A `TemplateError` names what fails; the `TemplateReport` has what only differs from template to
template.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from tau2_slime.tokens.template import calibration_cases
from tau2_slime.tokens.template.calibration_cases import DUMMY_BASE, NATIVE, Battery, Transition
from tau2_slime.tokens.template.calibration_report import Rewrites, TemplateReport
from tau2_slime.tokens.template.chat_template import (
    ChatMessage,
    ChatTemplate,
    MessageShape,
    TemplateError,
    template_source,
)
from tau2_slime.tokens.template.control_tokens import ControlTokenEscaper
from tau2_slime.tokens.template.stop_tokens import first_control_token

if TYPE_CHECKING:
    from tau2_slime.tokens.tokenizer import Tokenizer

CacheKey = tuple[str, str, str, tuple[int, ...], bool]

SHAPES = (
    MessageShape(string_arguments=False, call_content=""),
    MessageShape(string_arguments=True, call_content=""),
    MessageShape(string_arguments=False, call_content=None),
    MessageShape(string_arguments=True, call_content=None),
)
"""Tried in this order; the first with which every required transition works is used."""

TURN_ENDS = ("Sure.", "ok ", "ok\n", "ok\n\n", "好的", "...", '"}')
"""Ends of sampled turns that could merge with the delta's first characters."""


def calibrate(template: ChatTemplate, cases: Battery = NATIVE) -> TemplateReport:
    """Prove `template` usable for `cases`; its shape, and its closers if its family is not known, are found here.

    Raises:
        TemplateError: it cannot be used token-exactly; the error says why, and what to do.
    """
    _check_prompt(template, cases)
    _find_closers(template, cases)
    deltas = _find_shape(template, cases)
    _check_stops(template, deltas)
    _check_additive(template, deltas)
    prompt = template.render(cases.base, cases.tools)
    return TemplateReport(
        closers=dict(template.closers),
        stop_ids=template.stop_ids,
        string_arguments=template.shape.string_arguments,
        call_content=template.shape.call_content,
        parallel_ok="tools2" in deltas,
        mid_system_ok="sys" in deltas,
        text_with_call_ok="text_tool" in deltas,
        dummy_base_ok=_dummy_base_ok(template, cases, deltas),
        rewrites_on_user=_rewrites(template, cases, "user"),
        rewrites_on_tool=_rewrites(template, cases, "tool"),
        reasoning_preopened=prompt.rstrip().endswith("<think>"),
        preset_kwargs=dict(template.preset_kwargs),
        text_only=not cases.tools,
    )


def cache_key(
    tokenizer: Tokenizer,
    template_kwargs: Mapping[str, object] | None,
    generation_stop_ids: Iterable[int],
    text_only: bool = False,
) -> CacheKey:
    """Equal for tokenizers that render and encode in the same way. ``text_only``: what is to be proved."""
    added = sorted((str(text), int(token)) for text, token in tokenizer.get_added_vocab().items())
    identity = (type(tokenizer).__name__, len(tokenizer), getattr(tokenizer, "eos_token_id", None), added)
    probe = tuple(tokenizer.encode(calibration_cases.PROBE, add_special_tokens=False))
    names = (getattr(tokenizer, "bos_token", None), getattr(tokenizer, "eos_token", None))
    return (
        hashlib.sha256(template_source(tokenizer).encode()).hexdigest(),
        hashlib.sha256(repr((identity, probe, names)).encode()).hexdigest(),
        json.dumps(dict(template_kwargs or {}), sort_keys=True, default=repr),
        tuple(sorted(set(generation_stop_ids))),
        text_only,
    )


# --- the first prompt


def _check_prompt(template: ChatTemplate, cases: Battery) -> None:
    """Raise TemplateError unless tools, system prompt, greeting and user are in the prompt, each in its own role."""
    prompt = template.render(cases.base, cases.tools)
    missing = [tool["function"]["name"] for tool in cases.tools if tool["function"]["name"] not in prompt]
    if missing:
        raise TemplateError(
            "tools-not-rendered",
            f"the chat template ignores `tools`: {', '.join(missing)} is not in the prompt, so the model would not know "
            "its tools. Use a checkpoint, or a template given with the tokenizer, that renders tools",
        )
    names = {"system": "system prompt", "assistant": "greeting", "user": "user's message"}
    for message in cases.base:
        count = prompt.count(message["content"])
        if count != 1:
            raise TemplateError(
                "message-dropped",
                f"the chat template writes the {names[message['role']]} {count} times instead of once",
            )
    if cases.base[1]["role"] == "assistant":
        _check_greeting(template, cases)


def _check_greeting(template: ChatTemplate, cases: Battery) -> None:
    """Raise TemplateError unless something opens the greeting, and it is not written as a user's text would be."""
    system_prompt, greeting, user = cases.base
    prompt = template.render(cases.base, cases.tools)
    before = prompt.split(greeting["content"])[0]
    remedy = (
        f"before it stands {before[-60:]!r}. Where the template has a switch for this, set it in the template arguments; "
        "else use a template that renders a leading assistant message"
    )
    system = _render_or_none(template, cases, [system_prompt], add_generation_prompt=False)
    if system is not None and system.strip() == before.strip():
        raise TemplateError("greeting-not-assistant", f"the agent's greeting is rendered outside of any turn: {remedy}")
    if _render_or_none(template, cases, [system_prompt, {**greeting, "role": "user"}, user]) == prompt:
        raise TemplateError(
            "greeting-as-user",
            f"the agent's greeting, an assistant message, is rendered as the words of the user: {remedy}",
        )


def _render_or_none(
    template: ChatTemplate, cases: Battery, messages: Sequence[ChatMessage], add_generation_prompt: bool = True
) -> str | None:
    """None if the template refuses such a conversation, which it may."""
    try:
        return template.render(messages, cases.tools, add_generation_prompt)
    except TemplateError:
        return None


# --- closers, shape, deltas


def _find_closers(template: ChatTemplate, cases: Battery) -> None:
    """For a template of an unknown family: its closer is the first added token after an assistant's text."""
    if template.closers:
        return
    transition = cases.transitions["user"]
    base = [*cases.base, *transition.before[:-1]]
    tail = template.after(base, transition.before[-1], transition.after, cases.tools, ControlTokenEscaper(template))
    found = first_control_token(tail, template.control_tokens)
    if found is None:
        raise TemplateError("no-closer", f"no added token follows an assistant turn; the template writes {tail[:80]!r}")
    template.closers = {found[0]: found[1]}


def _find_shape(template: ChatTemplate, cases: Battery) -> dict[str, str]:
    """The deltas of the transitions, with the first message shape that works; no required transition is missing."""
    first: TemplateError | None = None
    for shape in SHAPES:
        template.shape = shape
        try:
            return _deltas(template, cases)
        except TemplateError as error:
            first = first or error
    assert first is not None
    raise first


def _deltas(template: ChatTemplate, cases: Battery) -> dict[str, str]:
    """Delta text of each transition that works; raises for a required one that does not."""
    deltas: dict[str, str] = {}
    for name, transition in cases.transitions.items():
        try:
            delta = _delta(template, cases, transition)
            whole = template.render([*cases.base, *transition.before, *transition.after], cases.tools)
            if not whole.endswith(delta):
                raise TemplateError(
                    "not-suffix",
                    f"after `{name}` the template ends with {whole[-60:]!r}, which is not the delta {delta[-60:]!r}",
                )
            _check_content(name, transition, delta, whole)
        except TemplateError as error:
            if transition.required:
                raise TemplateError(error.problem, f"{error.detail} (transition `{name}`)") from error
            continue
        deltas[name] = delta
    return deltas


def _delta(template: ChatTemplate, cases: Battery, transition: Transition, *, dummy: bool = False) -> str:
    history = DUMMY_BASE if dummy else [*cases.base, *transition.before[:-1]]
    tools = cases.dummy_tools if dummy else cases.tools
    return template.after(history, transition.before[-1], transition.after, tools, ControlTokenEscaper(template))


def _check_content(name: str, transition: Transition, delta: str, whole: str) -> None:
    """Raise TemplateError if a text is lost: new messages belong in the delta, the turn's own calls in the whole."""
    for message in transition.after:
        if message["content"] not in delta:
            raise TemplateError(
                "message-dropped", f"the template does not write the {message['role']} message {message['content']!r}"
            )
    for call in transition.before[-1].get("tool_calls", ()):
        (value,) = call["function"]["arguments"].values()
        if value not in whole or call["function"]["name"] not in whole.split(value)[0][-200:]:
            raise TemplateError("tool-call-dropped", f"the template does not write the tool call of `{name}`")
        if f'\\"{value}\\"' in whole:
            raise TemplateError("arguments-escaped", "the template encodes a call's arguments twice")


def _dummy_base_ok(template: ChatTemplate, cases: Battery, deltas: Mapping[str, str]) -> bool:
    for name, real in deltas.items():
        try:
            if _delta(template, cases, cases.transitions[name], dummy=True) != real:
                return False
        except TemplateError:
            return False
    return True


# --- tokens


def _check_stops(template: ChatTemplate, deltas: Mapping[str, str]) -> None:
    """Raise TemplateError unless the server stops where the template closes the turn, after a text and after a call."""
    for name in ("user", "tool"):
        found = first_control_token(deltas[name], template.closers)
        assert found is not None  # the delta was cut there
        if found[1] not in template.stop_ids and not _sampled_differently(template):
            raise TemplateError(
                "closer-not-stop",
                f"the template closes a turn with {found[0]} ({found[1]}), which is not a stop id: the server would run "
                f"past it. Stop ids are {sorted(template.stop_ids)}; add it to eos_token_id in generation_config",
            )


def _sampled_differently(template: ChatTemplate) -> bool:
    """True if a turn may end in a stop token that another closer replaces in the history, as in gpt-oss."""
    return any(token in template.stop_ids for token in template.closers.values())


def _check_additive(template: ChatTemplate, deltas: Mapping[str, str]) -> None:
    """Raise TemplateError unless the delta has the same ids apart from the sampled turn and together with it."""
    for name, delta in deltas.items():
        ids = template.encode(delta)
        if not ids or ids[0] not in template.closers.values():
            raise TemplateError("no-closer", f"encoded, the delta of `{name}` does not begin with its closer's id")
        if unicodedata.normalize("NFC", template.decode(ids)) != unicodedata.normalize("NFC", delta):
            raise TemplateError(
                "not-round-trip",
                f"the ids of {delta[:60]!r} decode to {template.decode(ids)[:60]!r}: this tokenizer does not keep text",
            )
        for end in TURN_ENDS:
            if template.encode(end + delta) != template.encode(end) + ids:
                raise TemplateError(
                    "not-additive",
                    f"encoded apart from a turn that ends in {end!r}, the delta of `{name}` has other ids than encoded "
                    "together with it. SentencePiece tokenizers that prefix a space do this; they are not supported",
                )


# --- what the template does to earlier turns


def _rewrites(template: ChatTemplate, cases: Battery, name: str) -> Rewrites:
    return Rewrites(
        plain=_rewrites_turn(template, cases, name, reasoning=False),
        reasoning=_rewrites_turn(template, cases, name, reasoning=True),
    )


def _rewrites_turn(template: ChatTemplate, cases: Battery, name: str, *, reasoning: bool) -> bool | None:
    """True if what the template writes for a conversation changes when it goes on; None if it refuses one of the two."""
    transition = cases.transitions[name]
    before = [calibration_cases.with_reasoning(message) if reasoning else message for message in transition.before]
    earlier = _render_or_none(template, cases, [*cases.base, *before], add_generation_prompt=False)
    later = _render_or_none(template, cases, [*cases.base, *before, *transition.after])
    if earlier is None or later is None:
        return None
    trimmed = earlier.rstrip()
    for closer in template.closers:
        trimmed = trimmed.removesuffix(closer)
    return not later.startswith(trimmed.rstrip())
