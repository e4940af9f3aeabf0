"""Commands that bring a trained student to where it is used: export, stream."""
