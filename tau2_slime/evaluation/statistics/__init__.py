"""From kept episodes to pass@k and pass^k with intervals."""
