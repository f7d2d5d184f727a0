"""What a message holds: cameras, images, depth, points, transforms."""
