"""An object of the user's own code, named in a setting by its dotted path.

The module is imported as Python imports any module: from ``sys.path``, never relative to a data folder.
"""

from __future__ import annotations

import difflib
import importlib
import keyword

from tau2_slime.errors import ConfigError


def load_object(path: str, *, what: str) -> object:
    """What ``path`` names: the attribute after the last dot, in the module before it.

    >>> load_object("json.decoder.JSONDecoder", what="decoder")
    <class 'json.decoder.JSONDecoder'>

    Args:
        path: for example ``my.module.MyParser``.
        what: what the setting is for, in the words of the error message: "tool-call parser".

    Raises:
        ConfigError: the path is not a dotted path, the module cannot be found, its import raised, or it lacks the name.
    """
    names = path.split(".")
    if len(names) < 2 or not all(name.isidentifier() and not keyword.iskeyword(name) for name in names):
        raise ConfigError(f"{what} {path!r} is not a dotted path; write it as my.module.MyClass")
    module_name, attribute = ".".join(names[:-1]), names[-1]
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"{what} {path!r}: Python finds no module {error.name!r}; install it, or put the folder that holds it "
                "on PYTHONPATH"
            ) from error
        raise ConfigError(
            f"{what} {path!r}: the import of {module_name} fails, because {error.name!r} is not installed; install it"
        ) from error
    except (Exception, SystemExit) as error:  # the user's module may do anything
        raise ConfigError(
            f"{what} {path!r}: the import of {module_name} raises {type(error).__name__}: {error}; "
            f"`python -c 'import {module_name}'` shows where"
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        close = difflib.get_close_matches(attribute, dir(module), n=1)
        hint = (
            f"; did you mean {close[0]!r}?" if close else f"; define it in {getattr(module, '__file__', module_name)}"
        )
        raise ConfigError(f"{what} {path!r}: the module {module_name} has no {attribute!r}{hint}") from None
