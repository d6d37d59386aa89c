"""After ``mutmut run``: which mutants lived, and whether enough died. ``make mutants`` runs both.

A mutant that no test can kill, because it changes nothing that a user could notice, stands in ``equivalent_mutants.toml``
with its reason. Its key is the function and the changed line, so that it survives edits elsewhere in the file.

    python tests/mutants.py [--print-keys]
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

EQUIVALENT = Path(__file__).with_name("equivalent_mutants.toml")
WANTED = 0.9
"""Share of the mutants with a difference that must die."""


def mutmut(*arguments: str) -> str:
    return subprocess.run(["mutmut", *arguments], check=True, capture_output=True, text=True).stdout


def key_of(name: str) -> str:
    """``module.function: - old line + new line``, from mutmut's diff of the mutant."""
    changed = [line for line in mutmut("show", name).splitlines() if re.match(r"[-+](?![-+])", line)]
    function = re.sub(r"__mutmut_\d+$", "", name).replace("xǁ", "").replace("ǁ", ".").replace(".x_", ".")
    return f"{function}: " + " ".join(f"{line[0]} {line[1:].strip()}" for line in changed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print-keys", action="store_true", help="print survivors as keys for equivalent_mutants.toml")
    arguments = parser.parse_args()
    fates = dict(re.findall(r"^\s*(\S+__mutmut_\d+): (.+?)\s*$", mutmut("results", "--all", "true"), re.M))
    fates = {name: fate for name, fate in fates.items() if fate != "not checked"}
    if not fates:
        sys.exit("no mutant was checked: run `mutmut run` first")
    lived = {name: key_of(name) for name, fate in fates.items() if fate in ("survived", "no tests", "suspicious")}
    equivalent = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8"))
    counted = len(fates) - sum(key in equivalent for key in lived.values())
    missed = sorted((key, name) for name, key in lived.items() if key not in equivalent)
    for key, name in missed:
        print(f'{json.dumps(key, ensure_ascii=False)} = ""' if arguments.print_keys else f"lived: {name}\n       {key}")
    share = 1 - len(missed) / counted
    print(f"{counted} mutants that make a difference, {len(missed)} lived: {share:.1%} died (wanted: {WANTED:.0%})")
    sys.exit(share < WANTED)


if __name__ == "__main__":
    main()
