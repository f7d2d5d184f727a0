"""From videos and images of one's own to sequences and split lists."""
