"""Training of ensembles of U-Nets."""
