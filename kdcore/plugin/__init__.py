"""Hook specifications, plugin discovery and the registry of components."""
