"""Stage `start`: what a training begins from."""
