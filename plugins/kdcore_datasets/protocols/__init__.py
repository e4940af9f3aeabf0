"""Protocols, which split recordings into training, validation and test."""
