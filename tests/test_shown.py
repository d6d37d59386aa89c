"""What models, endpoints and files say never steers the terminal or a Markdown page, whatever prints it."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from rich.progress import Progress
from rich.table import Table as Grid

from tau2_slime.evaluation.report.table import Table
from tau2_slime.runtime.console import new_console
from tau2_slime.runtime.text import markdown, shown
from tests.test_cli import tau2_slime

STEERING = {
    "clears the screen": "\x1b[2J",
    "sets the title": "\x1b]0;owned\x07",
    "C1 control": "\x9b2J",
    "returns to the start of the line": "all well\rall bad",
    "goes back": "good\b\b\b\bbad",
    "writes backwards": "\u202egnp.exe",
    "isolates": "\u2066x\u2069",
    "ends the line for some": "a\u2028b",
    "cannot be seen": "a\u200bb",
    "half a character": "\ud800",
    "DEL": "a\x7f",
}


@pytest.mark.parametrize("text", STEERING.values(), ids=STEERING)
def test_what_steers_is_written_out(text: str) -> None:
    said = shown(text)
    assert said.isprintable()
    assert said.encode().decode("unicode_escape", "surrogatepass") == text or not said.isascii()


def test_what_people_write_stays() -> None:
    for text in ("τ² – naïve", "日本語", "👩‍👩‍👧", "می‌خواهم", "a\\b", "100 %"):
        assert shown(text) == text
    assert shown("a\nb\tc", lines=True) == "a\nb\tc"
    assert shown("a\nb") == "a\\nb"


@pytest.mark.parametrize("text", STEERING.values(), ids=STEERING)
def test_nothing_that_a_command_prints_can_steer(
    text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The console itself sees to it, so that a line that forgets `shown` does no harm."""
    monkeypatch.setenv("COLUMNS", "100")
    console = new_console()
    table = Grid("name", title=text)
    table.add_row(text)
    console.print(table)
    console.print(text, markup=False, soft_wrap=True)
    console.print("x", text, style="red")
    with Progress(console=console) as bar:
        bar.add_task("episodes")
        bar.console.print(text)
    console.print(Table("title " + text, ["a", text], [[text, "1"]], text).rich())
    said = capsys.readouterr().out
    assert not any(c for c in said if not c.isprintable() and c not in "\n\u200d")


def test_rich_keeps_its_own_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    out.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    new_console().print("bad \x1b[2J", style="red", highlight=False)
    assert out.getvalue() == "\x1b[31mbad \\x1b[2J\x1b[0m\n"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a|b", "a\\|b"),
        ("a\\|b", "a\\\\\\|b"),
        ("<img src=x onerror=y>", "&lt;img src=x onerror=y&gt;"),
        ("![x](http://tracker/x.png)", "![x]\\(http://tracker/x.png)"),
        ("`code`", "\\`code\\`"),
        ("a\n\n# b", "a\\\\n\\\\n# b"),
        ("&lt;", "&amp;lt;"),
        ("pass^1 create_task_1", "pass^1 create_task_1"),
    ],
)
def test_a_page_shows_it_as_it_was_said(text: str, written: str) -> None:
    assert markdown(text) == written


def test_a_table_of_a_report_has_no_markup_of_others() -> None:
    page = Table("Tools", ["tool", "calls"], [["x|<script>alert(1)</script>\n|y", "1"]], "note <b>").markdown()
    assert "<" not in page
    (row,) = [line for line in page.splitlines() if "script" in line]
    assert row.count(" | ") == 1


def test_a_strangers_folder_cannot_steer(tmp_path: Path) -> None:
    hostile = "".join(STEERING.values()).encode("utf-8", "replace").decode()
    sample = {"index": hostile, "tokens": [1, 2], "response_length": 1, "loss_mask": [1], "rollout_log_probs": [-0.1]}
    sample |= {"reward": 1.0, "status": hostile, "metadata": {"domain": hostile, "task_id": hostile}}
    sample["metadata"]["tau2"] = {"domain": hostile, "task_id": hostile, "user_model": hostile, "termination": hostile}
    other = {hostile: 1}
    (tmp_path / "samples.jsonl").write_text(f"{json.dumps(sample)}\n{json.dumps(other)}\n")
    for more in ([], ["--check"], ["--episode", "x"], ["--episode", hostile, "--no-world"]):
        done = tau2_slime("inspect", str(tmp_path), *more)
        assert "2J" in done.stdout + done.stderr
        assert not {c for c in done.stdout + done.stderr if not c.isprintable()} - {"\n"}
