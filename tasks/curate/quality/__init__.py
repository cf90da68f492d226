"""Expectations that rows have to meet, for the stages `validate` and `pairs`."""
