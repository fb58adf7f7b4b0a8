"""A Dask batch engine for microscopy images of any size."""
