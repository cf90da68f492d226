"""Smaller forms of a version: quantised or distilled."""
