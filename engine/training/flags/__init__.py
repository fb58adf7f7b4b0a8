"""Settings of flags, searched for on validation images."""
