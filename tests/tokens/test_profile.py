"""What is proved of a checkpoint before the first episode: also the way of playing that was asked for."""

from __future__ import annotations

import copy

import pytest

from tau2_slime.config.settings import Tau2Config
from tau2_slime.errors import ConfigError
from tau2_slime.policy.checkpoint import build_profile
from tau2_slime.tokens.tokenizer import Tokenizer

WANTS_A_USER = (
    "{%- if messages | selectattr('role', 'equalto', 'user') | list | length == 0 -%}"
    "{{ raise_exception('there is no user turn') }}{%- endif -%}"
)


def test_a_template_that_wants_a_user_cannot_play_solo(tokenizer: Tokenizer) -> None:
    build_profile("local", Tau2Config(agent_type="solo"), tokenizer)
    refusing = copy.deepcopy(tokenizer)
    refusing.chat_template = WANTS_A_USER + refusing.chat_template
    build_profile("local", Tau2Config(), refusing)
    with pytest.raises(ConfigError, match=r"agent_type=solo: .*local wants one.*there is no user turn"):
        build_profile("local", Tau2Config(agent_type="solo"), refusing)
