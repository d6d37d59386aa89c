"""slime's own rollout code on a CPU: no ray, no sglang, no megatron.

    python -m tests.slime_cpu PLAN.json REPORT.json

Real: slime's argument parser and validation, `RolloutManager.generate` and `eval` with data source, buffer, abort, debug
dump, metrics, reward post-processing and conversion to train data. Stood in for: what slime imports but a rollout does not
need (`stubs`), the router with its worker (`server`, a process of its own), the trainer's weight updates (`updates`).
`check` proves the samples against what the server was asked and what it answered.
"""
