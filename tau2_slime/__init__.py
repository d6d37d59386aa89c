"""τ²-bench episodes for slime: token-exact rollouts, official rewards, every failure with a cause."""

__version__ = "0.1.0"
