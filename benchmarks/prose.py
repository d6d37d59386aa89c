"""How long README and docs are, and their sentences: ``python benchmarks/prose.py``. `tests/test_docs.py` holds the limits.

0.1.0         README 1,437 words; all pages 23,355; 20 to 31 words a sentence
2026-11-26    README 677 words; all pages 14,790; 12 to 17 words a sentence
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from statistics import fmean

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from tests.prose import sentence_lengths, word_count


def main() -> None:
    root = Path(__file__).resolve().parents[1]
    total = 0
    for page in [root / "README.md", *sorted((root / "docs").rglob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        total += word_count(text)
        print(
            f"{page.relative_to(root)!s:28} {word_count(text):6,} words, {fmean(sentence_lengths(text)):4.1f} a sentence"
        )
    print(f"{'all':28} {total:6,} words")


if __name__ == "__main__":
    main()
