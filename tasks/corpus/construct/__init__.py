"""Stage `construct`: examples made of documents, triples and seeds."""
