"""Training of masked autoencoders on class maps."""
