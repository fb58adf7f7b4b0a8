"""The demos: from nothing to a result that can be looked at, on this machine, in minutes."""
