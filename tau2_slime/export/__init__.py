"""Finished episodes as data for something else: slime's SFT, fine-tuning elsewhere, tables."""
