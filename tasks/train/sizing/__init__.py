"""What a training will take, before it starts: formulas, a probe, prices."""
