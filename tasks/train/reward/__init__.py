"""Stage `reward`: the reward model."""
