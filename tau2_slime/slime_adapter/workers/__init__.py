"""Worker processes that play the episodes, so that slime's own process only hands samples over. `pool` is the door.

A worker connects to the pool over one socket (`wire`), is told what to play (`task`), and plays it with the same code
(`process`). It is a Ray actor where Ray runs, and a plain process elsewhere (`launch`).
"""
