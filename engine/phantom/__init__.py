"""Phantom: images of mitochondria drawn from rules, whose truth is known."""
