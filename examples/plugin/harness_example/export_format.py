"""An export format: every figure of the summary as one CSV file."""

from __future__ import annotations

from harness.export.export import Export, Files


def files(what: Export) -> Files:
    """Return the file and what writes it."""
    figures = what.run.measurements()
    return {"figures.csv": lambda path: figures.to_csv(path, index=False)}
