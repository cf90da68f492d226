"""Build examples: sources of a domain become records."""
