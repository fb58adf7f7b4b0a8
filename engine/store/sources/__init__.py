"""Sources of ingest: one reader for each family of foreign formats."""
