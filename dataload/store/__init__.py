"""The frame store: frames decoded and resized once, kept for all epochs and runs."""
