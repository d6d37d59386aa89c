"""Reads episodes from any file that holds them; shows them in a terminal or on a page; checks their tokens."""
