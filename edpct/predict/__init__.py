"""Flying an engine: one frame, a folder, a raster of any size, a video, a camera."""
