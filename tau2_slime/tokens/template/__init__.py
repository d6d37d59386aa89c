"""What is appended between turns in the chat template's own words, and the proof that the template allows it."""
