"""Versions, promotion and lineage over MLflow."""
