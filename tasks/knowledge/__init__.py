"""What the domain knows, beside the weights: passages, how they are found, and what makes finding them better."""
