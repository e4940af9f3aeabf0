"""Makes a new plugin package from a template."""
