"""Scenes: what a raster says of itself, how its pixels are read, stretched, resampled and cut into windows."""
