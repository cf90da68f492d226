"""The platform in the background: up, down, status, keys."""
