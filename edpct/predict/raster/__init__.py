"""Maps of classes of rasters of any size: read > rows > write, with the ground (areas, polygons) beside."""
