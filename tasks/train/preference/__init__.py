"""Learning from preferences: the reward model, DPO and KTO."""
