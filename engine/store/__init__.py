"""Reading and writing of OME-Zarr, and the foreign formats that are ingested."""
