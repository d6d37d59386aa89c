"""Reads what torch.save wrote, without torch and without running anything: slime's dumps come from other people, too.

A ``.pt`` file is a zip with a pickle, and a pickle may call any function. Here it can call none: numbers, texts, containers,
numpy's arrays and torch's tensors become plain data. Whatever else a pickle names becomes a `Stranger`, which does nothing.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

_TORCH = {
    **{"DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": "bfloat16"},
    **{"LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "<i1", "ByteStorage": "<u1"},
    **{"BoolStorage": "|b1", "ComplexFloatStorage": "<c8", "ComplexDoubleStorage": "<c16"},
}
_NEWER = {"torch.uint16": "<u2", "torch.uint32": "<u4", "torch.uint64": "<u8"}
"""Types that have no storage class of their own: a tensor of them names its type beside plain bytes."""
_KINDS = {*_TORCH.values(), *_NEWER.values()}
_NUMBERS = "biufcSU"
"""Kinds of numpy's types that are read."""


class NotATorchFile(ValueError):
    """Why a file cannot be read."""


def read_torch_file(path: Path) -> object:
    """The object that was saved, as plain data; arrays and tensors have ``tolist()``.

    Raises:
        NotATorchFile: it is something else, or damaged.
        OSError: it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("data.pkl")]
            packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
            if len(names) != 1 or packed:  # packed, a small file could be a large one
                raise NotATorchFile("not a zip as torch.save writes it")
            with archive.open(names[0]) as zipped:
                # An unpickler reads a few bytes at a time, for which zipfile's own file is slow.
                pickled = io.BufferedReader(cast(io.RawIOBase, zipped), 1 << 20)
                return _Reader(pickled, archive, names[0].removesuffix("data.pkl")).load()
    except NotATorchFile:
        raise
    except zipfile.BadZipFile as error:
        raise NotATorchFile(f"not written by torch.save of torch 1.6 or later ({error})") from None
    except OSError:
        raise
    except Exception as error:  # unpicklers raise whatever a damaged file leads them to
        raise NotATorchFile(f"{type(error).__name__}: {error}") from None


class Stranger:
    """Stands in for a class or function that the pickle names; whatever is done to it has no effect."""

    name: ClassVar[str] = ""

    def __init__(self, *args: object, **kwargs: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):  # a sample that was not made a mapping
            self.__dict__.update({key: value for key, value in state.items() if isinstance(key, str)})

    def __call__(self, *args: object, **kwargs: object) -> Stranger:
        return self

    def append(self, item: object) -> None: ...

    def extend(self, items: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...

    def __str__(self) -> str:
        return f"<{self.name}>"


class _Type:
    """A numpy dtype."""

    def __init__(self, code: object, *rest: object) -> None:
        self.code = str(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.code = state[1] + self.code

    @property
    def numpy(self) -> np.dtype[Any]:
        return np.dtype(object) if self.code.lstrip("<>|=")[:1] == "O" else np.dtype(self.code)

    @property
    def is_read(self) -> bool:
        return self.numpy.kind in _NUMBERS

    def __str__(self) -> str:
        return f"<numpy values of the type {self.code}>"


class Array:
    """A numpy array or a torch tensor."""

    def __init__(self, *args: object) -> None:
        self._values: Callable[[], object] = list

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """numpy's: version, shape, type, is Fortran's order, data."""
        _, shape, kind, fortran, raw = state
        if kind.numpy.kind == "O":
            self._values = lambda: list(raw)
        else:
            self._read(raw, kind, shape, "F" if fortran else "C")

    def _read(self, raw: bytes, kind: _Type, shape: tuple[int, ...], order: str) -> Array:
        if not kind.is_read:
            self._values = lambda: str(kind)
            return self
        found = np.frombuffer(raw, kind.numpy)
        self._values = lambda: found.reshape(shape, order=cast("Any", order)).tolist()
        return self

    def tolist(self) -> object:
        return self._values()


def _from_buffer(raw: bytes, kind: _Type, shape: tuple[int, ...], order: str) -> Array:
    return Array()._read(bytes(raw), kind, shape, order)


def _scalar(kind: _Type, raw: bytes | str) -> object:
    if not kind.is_read:
        return str(kind)
    return np.frombuffer(raw.encode("latin1") if isinstance(raw, str) else raw, kind.numpy)[0].item()


def _tensor(
    storage: tuple[str, bytes],
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    gradient: object = None,
    hooks: object = None,
    flags: object = None,
) -> Array | Stranger:
    """``flags``: whether the values are to be read as their conjugates or negatives, which nobody needs here."""
    kind, raw = storage
    if kind not in _KINDS or (isinstance(flags, dict) and any(flags.values())):
        return _stranger(f"torch tensor of {kind}")()
    wide = np.frombuffer(raw, "<u2").astype("<u4") << 16 if kind == "bfloat16" else None
    values = wide.view("<f4") if wide is not None else np.frombuffer(raw, kind)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    count = math.prod(shape)
    if min((offset, *shape, *strides), default=0) < 0 or count > len(values) or (count and last >= len(values)):
        raise NotATorchFile("a tensor that is larger than its data")
    part = values[offset:]
    steps = [stride * values.itemsize for stride in strides]
    out = Array()
    out._values = lambda: np.lib.stride_tricks.as_strided(part, shape, steps, writeable=False).tolist()
    return out


def _newer_tensor(
    storage: tuple[str, bytes],
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    gradient: object,
    hooks: object,
    kind: type[Stranger],
    flags: object = None,
) -> Array | Stranger:
    return _tensor((_NEWER.get(kind.name, kind.name), storage[1]), offset, shape, strides, flags=flags)


def _parameter(data: object, *_: object) -> object:
    return data


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    """How protocol 2 spells bytes."""
    return text.encode("latin1")


def _bytes(data: bytes | str = b"", encoding: str = "latin1") -> bytes:
    """Never of a number: that many bytes would be made."""
    return data.encode("latin1") if isinstance(data, str) else bytes(memoryview(data))


def _member(of: Stranger, name: str) -> type[Stranger]:
    """How a pickle spells a class within a class, such as an enumeration of a sample."""
    return _stranger(f"{getattr(of, 'name', '?')}.{name}")


def _stranger(name: str) -> type[Stranger]:
    return type("Stranger", (Stranger,), {"name": name})


_KNOWN: dict[tuple[str, str], object] = {
    **{("builtins", kind.__name__): kind for kind in (set, frozenset, complex, list, dict, tuple, int, float)},
    ("builtins", "getattr"): _member,
    ("builtins", "bytes"): _bytes,
    ("builtins", "bytearray"): _bytes,
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
    ("_codecs", "encode"): _encoded,
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): Array,
    ("multiarray", "_reconstruct"): Array,
    ("multiarray", "scalar"): _scalar,
    ("numeric", "_frombuffer"): _from_buffer,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_tensor_v3"): _newer_tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}


class _Reader(pickle.Unpickler):
    def __init__(self, file: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file, encoding="utf-8")
        self._archive, self._root = archive, root

    def find_class(self, module: str, name: str) -> Any:
        """Never an import: one of a few functions of this module, or a `Stranger`."""
        module = {"__builtin__": "builtins"}.get(module, module)
        for core in ("numpy.core.", "numpy._core."):
            module = module.removeprefix(core)
        if module == "torch" and name in _TORCH:
            return _TORCH[name]
        return _KNOWN.get((module, name)) or _stranger(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> tuple[str, bytes]:
        """Type and data of a torch storage."""
        what, kind, key, _, _ = pid
        if what != "storage":
            raise NotATorchFile(f"something outside the pickle of the kind {what}")
        return kind if isinstance(kind, str) else getattr(kind, "name", "?"), self._archive.read(
            f"{self._root}data/{key}"
        )
