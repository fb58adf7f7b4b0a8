"""Torch modules, model folders and the loading of weights."""
