"""All that the package knows of slime: its arguments, its samples, its versions."""
