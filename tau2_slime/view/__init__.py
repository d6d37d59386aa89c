"""One viewer for every run: its curves, its episodes, one conversation; as a local server or as one file."""
