"""Banks of polynomial defenses, calibrated for a network."""
