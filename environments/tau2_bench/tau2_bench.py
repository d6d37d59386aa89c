"""τ²-bench under the id that verifiers looks for: ``vf.load_environment("tau2_bench", domain="telecom")``."""

from tau2_slime.backends.verifiers import load_environment

__all__ = ["load_environment"]
