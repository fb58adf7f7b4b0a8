"""Exporting: the tables of a result, with outlines, as files that other programs open."""

from engine.exporting.exporting import Exported, export_table

__all__ = ["Exported", "export_table"]
