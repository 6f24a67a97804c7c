"""The sweeps of the sweep tests."""

from sweep.conftest import sweep_file

__all__ = ["sweep_file"]
