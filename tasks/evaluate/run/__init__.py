"""Stages `evaluate_candidate` and `evaluate_champion`: OpenCompass on one model."""
