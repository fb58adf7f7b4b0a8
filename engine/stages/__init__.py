"""Stage implementations: thin, without Dask and without Zarr."""
