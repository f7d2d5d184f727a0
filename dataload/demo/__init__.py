"""The rendered street: a small world in KITTI's layout, made where it is needed."""
