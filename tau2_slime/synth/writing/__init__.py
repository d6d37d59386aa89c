"""A model writes the customer's words. What it writes is checked, read back by a model, and else the template stays."""
