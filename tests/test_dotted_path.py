"""Objects of the user's own code: what loads, and what each mistake is told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tau2_slime.errors import ConfigError
from tau2_slime.runtime.dotted_path import load_object


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of an importable package `own_code` that belongs to nobody but the test."""
    folder = tmp_path / "own_code"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "good.py").write_text("class Thing:\n    pass\n\nINSTANCE = Thing()\n")
    for name in ("bad", "needy"):
        (folder / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "own_code"]:
        del sys.modules[name]


def test_a_class_and_an_instance_load(package: Path) -> None:
    thing = load_object("own_code.good.Thing", what="thing")
    assert isinstance(thing, type) and thing.__name__ == "Thing"
    assert isinstance(load_object("own_code.good.INSTANCE", what="thing"), thing)


@pytest.mark.parametrize("path", ["", "Thing", ".good.Thing", "own_code..Thing", "own_code.good.", "own_code:Thing"])
@pytest.mark.parametrize("suffix", ["", " ", "/x", "-y", ".class"])
def test_what_is_not_a_dotted_path_is_refused(path: str, suffix: str) -> None:
    with pytest.raises(ConfigError, match=r"^thing .* is not a dotted path; write it as my\.module\.MyClass$"):
        load_object(path + suffix, what="thing")


@pytest.mark.parametrize(
    ("path", "module"),
    [("no_such_package.Thing", "no_such_package"), ("own_code.missing.Thing", "own_code.missing")],
)
def test_a_module_that_is_not_there_is_named(package: Path, path: str, module: str) -> None:
    with pytest.raises(ConfigError, match=f"^thing '{path}': Python finds no module '{module}'; .*PYTHONPATH$"):
        load_object(path, what="thing")


def test_a_module_that_needs_another_one_is_not_called_missing(package: Path) -> None:
    (package / "needy.py").write_text("import own_code_needs_this\n")
    with pytest.raises(
        ConfigError, match=r"import of own_code\.needy fails, because 'own_code_needs_this' is not inst"
    ):
        load_object("own_code.needy.Thing", what="thing")


@pytest.mark.parametrize("statement", ["1 / 0", "raise SystemExit(3)", "from own_code import nothing", "def"])
def test_an_import_that_raises_says_what(package: Path, statement: str) -> None:
    (package / "bad.py").write_text(statement + "\n")
    with pytest.raises(ConfigError, match=r"import of own_code\.bad raises (Zero|SystemExit|ImportError|SyntaxError)"):
        load_object("own_code.bad.Thing", what="thing")


def test_a_name_that_the_module_lacks_comes_with_the_nearest_one(package: Path) -> None:
    with pytest.raises(ConfigError, match="has no 'Thnig'; did you mean 'Thing'"):
        load_object("own_code.good.Thnig", what="thing")
    with pytest.raises(ConfigError, match=r"has no 'zzz'; define it in .*good\.py"):
        load_object("own_code.good.zzz", what="thing")


def test_a_folder_that_is_not_on_the_path_is_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data comes from others: a file beside it must not become code."""
    (tmp_path / "beside_data.py").write_text("class Thing:\n    pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    with pytest.raises(ConfigError, match="Python finds no module 'beside_data'"):
        load_object("beside_data.Thing", what="thing")
