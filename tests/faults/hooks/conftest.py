"""What pytest must not import: a module that Python loads by itself, beside its neighbour."""

collect_ignore = ["sitecustomize.py"]
