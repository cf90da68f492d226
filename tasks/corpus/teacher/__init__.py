"""The teacher: a larger model that writes and judges examples, asked over HTTP, cached and bounded."""
