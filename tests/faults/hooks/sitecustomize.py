"""Python loads this wherever PYTHONPATH names this folder: faults strike inside a process."""

import fault_injection  # type: ignore[import-not-found] # beside this file, on PYTHONPATH

fault_injection.install()
