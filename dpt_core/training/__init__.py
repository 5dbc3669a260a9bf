"""Training: the data, the losses and the loops that make an adapter and its LoRA."""
