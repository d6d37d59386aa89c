"""Finished samples -> numbers to plot. Pure: nothing here knows slime's modules, and nothing changes a sample."""
