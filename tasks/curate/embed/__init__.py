"""Stage `embed`: sentence embeddings."""
