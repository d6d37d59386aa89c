"""Finished samples -> numbers to plot. Nothing here imports slime or changes a sample."""
