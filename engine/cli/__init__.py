"""The command line: parse, call, print."""

from engine.cli.main import main

__all__ = ["main"]
