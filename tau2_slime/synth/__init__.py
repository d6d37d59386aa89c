"""Verified synthetic tasks: policy rules as code, gates over tasks of any origin, and a generator that passes them."""
