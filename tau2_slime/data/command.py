"""`tau2-slime data`: write slime's prompt data (JSONL) from τ²'s splits, or from task files of one's own."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from tau2_slime.config.settings import AgentType
from tau2_slime.config.task_split import absolute, names_a_file, short_name
from tau2_slime.data.files import MANIFEST, write_files
from tau2_slime.data.plan import plan_files
from tau2_slime.data.request import DataRequest, parse_fractions, parse_weights
from tau2_slime.errors import ConfigError
from tau2_slime.runtime.text import shown
from tau2_slime.world import domains

EPILOG = """\
examples:
  tau2-slime data                                           train and test files of every domain
  tau2-slime data --multi-domain-train retail telecom       and retail_telecom_train_tasks.jsonl, shuffled
  tau2-slime data --domains retail --fractions train=0.9,dev=0.1
  tau2-slime data --domains telecom --splits full test      telecom_full_train_tasks.jsonl: full without test
  tau2-slime data --multi-domain-train retail telecom:full  the same 2,245 telecom tasks beside retail's train
  tau2-slime data --multi-domain-train retail telecom --weights retail=3 telecom=2   3 : 2, by repeating rows
"""


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="tau2-slime data", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument(
        "--output_dir", "--output-dir", metavar="DIR", type=Path, default=Path(os.environ.get("DATA_DIR") or "data"),
        help="where to (default: $DATA_DIR, else ./data)",
    )  # fmt: skip
    p.add_argument(
        "--domains", nargs="+", default=[], metavar="DOMAIN", help="default: every domain of the installed τ²"
    )
    p.add_argument(
        "--splits", nargs="+", default=[], metavar="SPLIT",
        help="τ²'s splits, or file:PATH (default: train and test; for a domain without them, all that it has)",
    )  # fmt: skip
    p.add_argument(
        "--multi-domain-train", "--multi_domain_train", nargs="+", default=[], metavar="DOMAIN[:SPLIT]",
        help="also write one file with the training tasks of these domains, shuffled",
    )  # fmt: skip
    p.add_argument(
        "--weights", nargs="+", default=[], metavar="DOMAIN=TIMES",
        help="how often the tasks of a domain stand in that file (default: once)",
    )  # fmt: skip
    p.add_argument("--seed", type=int, default=42, help="of the shuffle and the fractions (default: 42)")
    p.add_argument("--limit", type=int, metavar="N", help="at most the first N tasks of each domain and split")
    p.add_argument(
        "--fractions", metavar="NAME=SHARE,...", help="divide every split but test at random: train=0.9,dev=0.1"
    )
    p.add_argument(
        "--exclude-split", nargs="*", metavar="SPLIT",
        help="leave the tasks of these splits out of training files (default: test, for every split but train)",
    )  # fmt: skip
    p.add_argument("--allow-test-tasks", action="store_true", help="let training files hold tasks of the test split")
    p.add_argument("--allow-llm-judge", action="store_true", help="keep tasks that an LLM judge grades")
    p.add_argument(
        "--agent-type", choices=get_args(AgentType), default="llm", help="leave out what this agent cannot play"
    )
    p.add_argument(
        "--drop-trivial", action="store_true",
        help="leave out tasks that pay an agent which does nothing, or transfers to a human at once",
    )  # fmt: skip
    p.add_argument(
        "--drop-order-dependent", action="store_true",
        help="leave out tasks whose end depends on the order of the writes, or inside a list",
    )  # fmt: skip
    p.add_argument("--force", action="store_true", help="replace files that hold other rows")
    return p


def _absolute_part(part: str) -> str:
    """``domain:file:PATH`` with an absolute path."""
    domain, colon, split = part.partition(":")
    return f"{domain}{colon}{absolute(split)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 written, 2 refused (one line on stderr, nothing written)."""
    args = parser().parse_args(argv)
    try:
        splits = tuple(map(absolute, args.splits))
        only_files = bool(splits) and all(map(names_a_file, splits))
        request = DataRequest(
            domains=tuple(args.domains) or (tuple(map(domains.domain_of_file, splits)) if only_files else ()),
            splits=splits,
            multi_domain_train=tuple(map(_absolute_part, args.multi_domain_train)),
            weights=parse_weights(args.weights),
            seed=args.seed,
            limit=args.limit,
            fractions=parse_fractions(args.fractions) if args.fractions else (),
            exclude_splits=None if args.exclude_split is None else tuple(args.exclude_split),
            allow_test_tasks=args.allow_test_tasks,
            allow_llm_judge=args.allow_llm_judge,
            agent_type=args.agent_type,
            drop_trivial=args.drop_trivial,
            drop_order_dependent=args.drop_order_dependent,
        )
        planned = plan_files(request)
        changed = write_files(planned, args.output_dir, replace=args.force)
    except (ConfigError, ImportError) as error:
        print(f"error: {shown(error)}", file=sys.stderr)
        return 2
    except OSError as error:  # `write` has told its own as a ConfigError
        print(f"error: τ² cannot read its data: {error} (an upstream τ² looks below $TAU2_DATA_DIR)", file=sys.stderr)
        return 2
    for note in planned.notes:
        print(f"note: {shown(note)}")
    width = max(len(file.name) for file in planned.files)
    for file in planned.files:
        made_of = " + ".join(
            f"{s.domain}/{short_name(s.split)} {len(s.positions)}{f' x {s.weight}' if s.weight > 1 else ''}"
            for s in file.selections
        )
        state = "written" if changed[file.name] else "unchanged"
        print(f"{file.name:{width}}  {len(file.rows):5} rows  {file.role:8}  {made_of}  ({state})")
    print(f"{len(planned.files)} files and {MANIFEST} in {args.output_dir}")
    return 0
