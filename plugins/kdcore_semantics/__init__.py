"""kdcore plugin."""
