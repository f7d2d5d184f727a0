"""What serves every room and knows nothing of depth: files, disk, machine, threads, downloads, messages."""
