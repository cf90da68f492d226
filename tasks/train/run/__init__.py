"""One training run: its job, launch, workers, methods, checkpoints and signs of life."""
