"""Rows of people's own files, as they see them."""
