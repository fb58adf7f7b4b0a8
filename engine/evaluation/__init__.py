"""Scoring of results against truth."""
