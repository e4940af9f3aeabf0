"""A small physical simulator of people moving in front of sensors."""
