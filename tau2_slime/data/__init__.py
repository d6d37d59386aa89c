"""Prompt data for slime, written from τ²'s splits."""
