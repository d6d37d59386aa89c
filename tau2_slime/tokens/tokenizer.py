"""What the package needs of a checkpoint's tokenizer; transformers' fast tokenizers have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class Tokenizer(Protocol):
    """A tokenizer with a chat template. Token ids are ints below the model's vocabulary size."""

    chat_template: str | Mapping[str, str] | None
    eos_token_id: int | None

    def __len__(self) -> int: ...

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...

    def decode(self, token_ids: Sequence[int], **options: object) -> str: ...

    def convert_ids_to_tokens(self, ids: int) -> str | None: ...

    def get_vocab(self) -> Mapping[str, int]: ...

    def get_added_vocab(self) -> Mapping[str, int]: ...

    def get_chat_template(self, chat_template: str | None = None, tools: Sequence[Any] | None = None) -> str: ...

    def apply_chat_template(self, conversation: Sequence[Mapping[str, Any]], **options: object) -> object:
        """A text with ``tokenize=False``; otherwise token ids, in a form that depends on the release of transformers."""
