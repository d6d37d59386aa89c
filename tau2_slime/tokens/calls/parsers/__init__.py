"""One module per tool-call format; the modules share `tagged` (the scan of a turn) and `checks` (the schema)."""
