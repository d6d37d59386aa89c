"""The policies of τ²'s domains as rules that code can check, each with the clause that it stands for."""
