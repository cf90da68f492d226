"""Stage `pairs`: preferences, guarded and split."""
