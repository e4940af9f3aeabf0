"""Hook specifications, plugin discovery and the registry of what plugins provide."""
