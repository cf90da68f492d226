"""Stage `base_model`: the base model in safetensors."""
