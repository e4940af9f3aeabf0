"""Deterministic transforms of signals."""
