"""The same cases, played through every door: `python -m tests.backends.doors DOOR CASES RECORDS` is one of them."""
