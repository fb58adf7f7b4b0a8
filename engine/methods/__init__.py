"""The numerics of the published methods as pure functions: arrays in, arrays out."""
