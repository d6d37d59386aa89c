"""From a summary to tables, pages, τ²'s results files and W&B."""
