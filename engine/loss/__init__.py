"""The published self-supervised objective: its terms, and the forms in which a CPU and a GPU compute them."""
