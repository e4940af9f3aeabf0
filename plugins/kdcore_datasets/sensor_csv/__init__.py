"""Dataset of delimited text files, described in the recipe."""
