"""What README and docs name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tau2_slime.config import Tau2Config

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_configuration_page_lists_every_key_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", (ROOT / "docs" / "configuration.md").read_text(), re.M))
    assert set(rows) == set(Tau2Config.model_fields)
    for name, field in Tau2Config.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if default in (None, (), {}):
            assert rows[name] == "-", name
        else:
            assert rows[name].strip("`") == repr(default).replace("'", ""), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text()
    targets = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("http")]
    named = re.findall(r"(?:python |ARGS=)((?:tests|benchmarks|data_prep)/[\w./]+)", text)
    for target in [*(page.parent / t for t in targets), *(ROOT / n for n in named)]:
        assert target.exists(), f"{page.name} names {target}"


def test_every_module_in_the_architecture_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    table = text.split("## The rooms")[1].split("## How")[0]
    package = ROOT / "tau2_slime"
    for cell in re.findall(r"^\| (.+?) \|", table, re.M)[2:]:
        for name in re.findall(r"`([\w/]+)`", cell):
            assert (package / f"{name}.py").exists() or (package / name).is_dir(), name
