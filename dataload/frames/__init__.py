"""Facts of one frame: its line in a split, its camera, its sparse depth."""
