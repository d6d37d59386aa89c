"""Seeing what happened: episodes of any source in the terminal, on one page, and checked for token truth."""
