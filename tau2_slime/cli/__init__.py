"""The command line: tau2-slime and python -m tau2_slime.cli."""
