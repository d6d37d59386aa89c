"""From an evaluation's YAML file and prompt rows to datasets of tasks."""
