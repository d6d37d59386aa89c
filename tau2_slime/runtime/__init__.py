"""Event loops, threads, connections and the console: what belongs to the process and not to an episode."""
