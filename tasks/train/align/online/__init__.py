"""Learning from rewards while answering: PPO, RLOO and GRPO."""
