"""What calibration found out about a chat template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Rewrites(NamedTuple):
    """Does the template change earlier turns when a message is added? None: it refuses such turns."""

    plain: bool | None
    """For turns without reasoning."""
    reasoning: bool | None
    """For turns with reasoning."""


@dataclass(frozen=True)
class TemplateReport:
    """Capabilities of a template that passed; what did not pass raised a TemplateError instead."""

    closers: Mapping[str, int]
    """Tokens that end an assistant turn in history."""
    stop_ids: frozenset[int]
    """Ids on which the server has to stop."""
    string_arguments: bool
    """The template wants a call's arguments as a JSON string."""
    call_content: str | None
    """Content of a message that has calls and no text."""
    parallel_ok: bool
    """Several calls in one turn can be rendered. Where not, a turn with several calls cannot go on."""
    mid_system_ok: bool
    """A system message in mid-conversation can be appended."""
    text_with_call_ok: bool
    """A turn with text and a call can go on token-exactly."""
    dummy_base_ok: bool
    """The delta does not depend on the history, so that the history need not be rendered."""
    rewrites_on_user: Rewrites
    """A user message changes what the template writes for earlier turns; `keep` mode keeps what was sampled."""
    rewrites_on_tool: Rewrites
    """A tool result does."""
    reasoning_preopened: bool
    """The generation prompt ends in `<think>`: what the model samples begins inside its reasoning."""
    preset_kwargs: Mapping[str, object]
    """Template arguments that were set for the user."""
    text_only: bool = False
    """Proved for actions in plain text: the template is given no tools."""

    def one_line(self) -> str:
        """For the log and for `doctor`."""
        parts = [
            f"closes with {' '.join(self.closers)}",
            "actions in plain text"
            if self.text_only
            else f"parallel calls {'ok' if self.parallel_ok else 'REFUSED by the template'}",
            f"delta from {'a dummy base' if self.dummy_base_ok else 'the real history'}",
        ]
        if not self.text_with_call_ok and not self.text_only:
            parts.append("text beside a call NOT expressible")
        if not self.mid_system_ok and not self.text_only:
            parts.append("no system message in mid-conversation")
        if self.string_arguments:
            parts.append("arguments as JSON string")
        if self.call_content is None:
            parts.append("content None beside calls")
        if self.reasoning_preopened:
            parts.append("reasoning pre-opened")
        for name, rewrites in (("user", self.rewrites_on_user), ("tool", self.rewrites_on_tool)):
            shapes = [shape for shape, value in zip(Rewrites._fields, rewrites, strict=True) if value]
            if shapes:
                parts.append(f"rewrites {' and '.join(shapes)} turns on a {name} message (kept as sampled)")
        if self.preset_kwargs:
            parts.append("set " + ", ".join(f"{name}={value!r}" for name, value in self.preset_kwargs.items()))
        return "; ".join(parts)
