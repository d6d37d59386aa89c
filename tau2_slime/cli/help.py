"""The help of a command: its options in groups, their names whole on a narrow terminal, and an example."""

from __future__ import annotations

from typing import TYPE_CHECKING

from typer.core import TyperCommand

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter

_GROUPS = {
    "Tasks": "config data_dir domain split task_id task_ids tasks groups samples_per_prompt attempts max_turns",
    "Agent": (
        "seat router hf_checkpoint trust_remote_code policy_model policy_base_url policy_api_key_var policy_args "
        "policy_name agent_type agent_strategy few_shot retrieval_variant temperature top_p max_new_tokens max_context_len "
        "gold_rate mistakes policy_noise spelling"
    ),
    "User": "user_model user_base_url user_api_key_var user_strategy user_concurrency",
    "Run": "set_ concurrency retries retry_excluded max_cost price dry_run",
    "Output": "output_dir keep_tokens baselines wandb_project fail_under",
}
_GROUP_OF = {name: group for group, names in _GROUPS.items() for name in names.split()}
OTHERS = "Options"


class Command(TyperCommand):
    """A command whose ``epilog`` is an example: one line to copy."""

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {name: [] for name in (*_GROUPS, OTHERS)}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                kind = "Arguments" if parameter.param_type_name == "argument" else OTHERS
                groups.setdefault(_GROUP_OF.get(parameter.name or "", kind), []).append(record)
        if sum(len(rows) > 1 for rows in groups.values()) < 3:  # few options need no groups
            arguments = groups.pop("Arguments", [])
            groups = {"Arguments": arguments, OTHERS: [row for rows in groups.values() for row in rows]}
        for name, rows in groups.items():
            if rows:
                with formatter.section(name):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: Context, formatter: HelpFormatter) -> None:
        if self.epilog:
            formatter.write(f"\nExample:\n  {self.epilog}\n")
