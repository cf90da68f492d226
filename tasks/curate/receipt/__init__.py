"""Stage `receipt`: what became of every example."""
