"""From your own videos and images to sequences and split lists."""
