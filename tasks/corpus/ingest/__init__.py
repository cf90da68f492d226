"""Stage `ingest`: a domain's sources become records."""
