"""Who is measured, what is asked and how it is scored: what `run` and `gate` have in common."""
