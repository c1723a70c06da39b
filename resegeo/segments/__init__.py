"""Segment sources: SAM, superpixels, label rasters, polygons, or none."""
