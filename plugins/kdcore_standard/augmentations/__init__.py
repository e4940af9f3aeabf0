"""Random changes of signals, for training."""
