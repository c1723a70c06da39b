"""What a run leaves: class raster, polygons, styles, picture."""
