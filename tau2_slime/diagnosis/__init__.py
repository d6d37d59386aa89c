"""Why episodes failed: who, what, where, by which words; and what that says about a run."""
