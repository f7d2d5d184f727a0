"""The file formats of recordings: where each message lies in them."""
