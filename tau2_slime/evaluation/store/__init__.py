"""What an evaluation keeps on disk: one record per episode, and the manifest."""
