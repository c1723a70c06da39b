"""Data sets of images and labels: one file says all, one command segments, draws and measures."""
