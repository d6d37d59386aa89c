"""The gates G1 to G17: what must hold for a task before anybody trains on it."""
