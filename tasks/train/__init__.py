"""Train: the base model, supervised fine-tuning under DeepSpeed, and the package that is judged and served."""
