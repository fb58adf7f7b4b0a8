"""Integer arithmetic of tiled inference: boxes, grids, tiles, blending and seams."""
