"""Event loops, threads, connections and the console: what belongs to the process and knows no episode."""
