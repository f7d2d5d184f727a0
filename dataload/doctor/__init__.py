"""``md-data doctor``: what this machine and its packages offer the engine, what is wrong with them, and what mends it."""
