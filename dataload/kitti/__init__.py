"""KITTI from nothing: archives, downloads, JPEGs, laser scans."""
