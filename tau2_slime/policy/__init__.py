"""The policy in tokens: how turns are sampled, and what a checkpoint brings."""
