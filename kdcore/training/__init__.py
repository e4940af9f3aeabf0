"""From samples to trained participants: splits, cached tensors, the distillation step, the loop, checkpoints."""
