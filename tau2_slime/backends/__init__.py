"""Doors for other training frameworks: thin adapters over `turns.TurnEpisode`. The core never imports them."""
