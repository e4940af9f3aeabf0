"""Starts new plugins from templates."""
