"""Evaluation whose numbers can be believed: plan (YAML) -> run -> statistics -> report. Nothing here knows slime."""
