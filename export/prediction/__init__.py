"""From images, videos and webcams to depth in files."""
