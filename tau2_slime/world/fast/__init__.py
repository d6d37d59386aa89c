"""Optional: environments and scoring without parsing a domain again. Without this folder, τ²'s own path is taken."""
