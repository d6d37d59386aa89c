"""A YAML file from somewhere means at most so much: no file stops a command, each gets its one line."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tau2_slime.cli.options import config_mapping
from tau2_slime.errors import ConfigError
from tau2_slime.evaluation.plan.datasets import load_plan
from tau2_slime.evaluation.plan.yaml_source import read_yaml
from tau2_slime.evaluation.request import parse_settings

LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(7)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {{p: *a{i - 1}, q: *a{i - 1}}}\n" for i in range(1, 40))
TALL = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 3000))
EVERY_READER = {
    "aliases 10^8": LAUGHS,
    "aliases 2^40": MERGES,
    "aliases that nest": TALL,
    "list within itself": "a: &a [*a]\n",
    "mapping within itself": "a: &a {b: {c: *a}}\n",
    "deep": "a: " + "[" * 3000 + "]" * 3000 + "\n",
    "deep and open": "a: " + "{b: " * 3000 + "\n",
    "deep by indentation": "".join(" " * i + f"k{i}:\n" for i in range(900)),
    "python": "a: !!python/object/apply:os.system ['true']\n",
    "unhashable key": "? [a]\n: b\n",
    "long number": "a: " + "9" * 100_000 + "\n",
    "base 60": "a: " + ":".join(["59"] * 60_000) + "\n",
    "unknown alias": "a: *b\n",
    "control character": "a: \x01\n",
    "unclosed": "a: 'x\n",
}
INTERPOLATIONS = {
    "10^9 characters": "a0: xxxxxxxxxx\n" + "".join(f"a{i}: '" + f"${{a{i - 1}}}" * 10 + "'\n" for i in range(1, 9)),
    "relative": "m:\n  a0: xxxxxxxxxx\n" + "".join(f"  a{i}: '" + f"${{.a{i - 1}}}" * 10 + "'\n" for i in range(1, 9)),
    "by position": "a:\n- xxxxxxxxxx\n" + "".join("- '" + f"${{a[{i - 1}]}}" * 10 + "'\n" for i in range(1, 9)),
    "by oc.select": "a0: xxxxxxxxxx\n"
    + "".join(f"a{i}: '" + f"${{oc.select:a{i - 1}}}" * 10 + "'\n" for i in range(1, 9)),
    "a computed name": "b: a\na: x\nc: ${${b}}\n",
    "itself": "a: ${b}\nb: ${a}\n",
    "a long chain": "".join(f"a{i}: ${{a{i + 1}}}\n" for i in range(500)) + "a500: x\n",
}


def as_config(path: Path) -> object:
    path.write_text(path.read_text() + "tau2: {max_turns: 3}\n")
    return config_mapping(path)


@pytest.mark.parametrize("text", EVERY_READER.values(), ids=EVERY_READER)
@pytest.mark.parametrize("read", [load_plan, as_config], ids=["evaluation", "rollout"])
def test_every_reader_refuses_it_at_once_and_in_a_line(
    tmp_path: Path, text: str, read: Callable[[Path], object]
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    began = time.process_time()
    with pytest.raises(ConfigError) as raised:
        read(path)
    assert time.process_time() - began < 5
    assert str(path) in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1 and len(str(raised.value)) < 500


@pytest.mark.parametrize("text", INTERPOLATIONS.values(), ids=INTERPOLATIONS)
def test_interpolations_have_an_end(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    began = time.process_time()
    with pytest.raises(ConfigError, match="interpolation") as raised:
        read_yaml(path)
    assert time.process_time() - began < 5
    assert f"{path}, line " in str(raised.value)


def test_a_date_that_cannot_be(tmp_path: Path) -> None:
    """OmegaConf reads no dates, so the evaluation takes it as text; PyYAML does."""
    path = tmp_path / "c.yaml"
    path.write_text("a: 2001-99-99\ntau2: {max_turns: 3}\n")
    with pytest.raises(ConfigError, match="month must be"):
        config_mapping(path)
    with pytest.raises(ConfigError, match="--set 'max_turns=2001-99-99'"):
        parse_settings(["max_turns=2001-99-99"])


def test_what_people_write_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", "/data")
    path = tmp_path / "c.yaml"
    shared = "shared: &shared {temperature: 1.0, top_p: 0.5}\n"
    many = "".join(
        f"- {{name: d{i}, <<: *shared, path: '${{oc.env:DATA_DIR}}/${{names.n}}.jsonl'}}\n" for i in range(300)
    )
    path.write_text(f"{shared}names: {{n: x, again: '${{.n}}', or: '${{oc.select:names.q,7}}'}}\nall:\n{many}")
    data = read_yaml(path).data
    assert isinstance(data, dict)
    assert data["names"] == {"n": "x", "again": "x", "or": 7}
    assert data["all"][299] == {"name": "d299", "temperature": 1.0, "top_p": 0.5, "path": "/data/x.jsonl"}
