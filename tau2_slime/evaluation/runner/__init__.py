"""Who plays an evaluation's episodes, and each of them exactly once."""
