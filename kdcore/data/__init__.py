"""Samples, splits and prepared tensors."""
