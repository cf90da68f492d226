"""Stage `align`: DPO and KTO; PPO, RLOO and GRPO in online/."""
