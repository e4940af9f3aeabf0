"""A small physical simulator of people moving before sensors."""
