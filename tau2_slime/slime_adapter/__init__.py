"""All that the package knows of slime: its arguments, its samples, its versions."""

GENERATE = "tau2_slime.generate_with_tau2.generate"
"""What slime is given as ``--custom-generate-function-path``."""
