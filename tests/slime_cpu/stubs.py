"""Names that slime imports and a CPU machine lacks, for as long as slime is being imported."""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator
from typing import Any

# A real ray would start a cluster, a real wandb log in: these are replaced even where they are installed.
ALWAYS = ("ray", "wandb", "sglang", "sglang_router", "megatron")
IF_MISSING = ("tensorboard", "numba", "memray", "mbridge", "polars", "setproctitle")


class _Open(type):
    """A class that has every attribute."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Open(name, (Nothing,), {})


class Nothing(metaclass=_Open):
    """Takes every argument, can be called, is nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Nothing:
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing()


class _StubModule(types.ModuleType):
    __path__ = ()  # type: ignore[assignment]
    __version__ = "0.3.2"  # slime asks the router's version for the names of its endpoints

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = _Open(name, (Nothing,), {})
        setattr(self, name, value)
        return value


class _Finder:
    def __init__(self, roots: set[str]) -> None:
        self.roots = roots

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.split(".")[0] in self.roots:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        return _StubModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        if module.__name__ == "ray":
            _make_local(module)


def _make_local(ray: Any) -> None:
    """Actors are plain objects, references the values themselves."""

    def remote(*given: Any, **options: Any) -> Any:
        def wrap(cls: Any) -> Any:
            if isinstance(cls, type):
                cls.options = classmethod(lambda c, **_: c)  # type: ignore[attr-defined]
                cls.remote = classmethod(lambda c, *args, **kwargs: c(*args, **kwargs))  # type: ignore[attr-defined]
            return cls

        return wrap(given[0]) if given and not options else wrap

    ray.remote = remote
    ray.put = ray.get = lambda value, **_: value
    ray.is_initialized = lambda: False
    ray._private = types.SimpleNamespace(services=types.SimpleNamespace(get_node_ip_address=lambda: "127.0.0.1"))


@contextlib.contextmanager
def stubbed() -> Iterator[None]:
    """Inside, those imports succeed; afterwards they fail again, so that a plugin meets a bare machine."""
    missing = {name for name in IF_MISSING if importlib.util.find_spec(name) is None}
    finder = _Finder({*ALWAYS, *missing})
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in ALWAYS}
    sys.meta_path.insert(0, finder)  # type: ignore[arg-type]
    try:
        yield
    finally:
        sys.meta_path.remove(finder)  # type: ignore[arg-type]
        for name in [name for name, module in sys.modules.items() if isinstance(module, _StubModule)]:
            del sys.modules[name]
        sys.modules.update(hidden)
