"""A run: the loop and what happens around each update."""
