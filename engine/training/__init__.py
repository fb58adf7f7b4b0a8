"""Fitting of networks."""
