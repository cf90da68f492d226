"""How a training stage carries its training out: estimate, launch, go on, measure."""
