"""The contracts between kdcore and its plugins; import them from `kdcore` itself."""
