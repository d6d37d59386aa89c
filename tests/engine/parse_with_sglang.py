"""Calls as sglang itself reads them (runs inside ``.venv-engine``).

    echo '{"tools": [...], "cases": [{"parser": NAME, "reasoning": NAME, "text": TEXT, "open": BOOL}, ...]}' |
        python parse_with_sglang.py

prints one JSON list: for each case [[tool's name, arguments as JSON text], ...].
"""

from __future__ import annotations

import json
import os
import sys

from launch_sglang import ENVIRONMENT, declare_torchvision_ops, only_load_qwen3, stand_in_for_triton

os.environ.update(ENVIRONMENT, SGLANG_FORWARD_UNKNOWN_TOOLS="1")
declare_torchvision_ops()
only_load_qwen3()
stand_in_for_triton()

from sglang.srt.entrypoints.openai.protocol import Tool  # noqa: E402  # after the stand-ins
from sglang.srt.function_call.function_call_parser import FunctionCallParser  # noqa: E402
from sglang.srt.parser.reasoning_parser import ReasoningParser  # noqa: E402


def calls_in(case: dict[str, object], tools: list[Tool]) -> list[list[str]]:
    text = str(case["text"])
    reader = ReasoningParser(case["reasoning"], stream_reasoning=False, force_reasoning=bool(case["open"]))
    _, text = reader.parse_non_stream(text)
    parser = FunctionCallParser(tools, str(case["parser"]))
    if not text or not parser.has_tool_call(text):
        return []
    _, calls = parser.parse_non_stream(text)
    return [[str(call.name), call.parameters] for call in calls]


def main() -> None:
    asked = json.load(sys.stdin)
    tools = [Tool(**tool) for tool in asked["tools"]]
    print(json.dumps([calls_in(case, tools) for case in asked["cases"]]))


if __name__ == "__main__":
    main()
