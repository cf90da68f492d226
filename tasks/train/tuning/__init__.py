"""Supervised tuning and continued pretraining: rows, batches, trainer and workers."""
