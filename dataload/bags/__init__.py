"""Recordings of ROS 1 and ROS 2 turned into the Evo layout."""
