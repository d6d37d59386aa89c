"""τ²-bench under the id that verifiers looks for, in the API of the installed release.

verifiers < 0.4: ``vf.load_environment("tau2_bench", domain="telecom")``. verifiers >= 0.4: ``vf-eval tau2-bench``, which
takes the `Taskset`, `Harness` and `Env` in ``__all__``, or ``tau2_bench.load_environment``.
"""

from tau2_slime.backends.verifiers import has_v1, load_environment

__all__ = ["load_environment"]

if has_v1():
    from tau2_slime.backends.verifiers.v1 import Tau2Env, Tau2Harness, Tau2Taskset

    __all__ += ["Tau2Env", "Tau2Harness", "Tau2Taskset"]
