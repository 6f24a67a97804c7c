"""Memory that a process has freed, and its allocator has not."""

from __future__ import annotations

import ctypes
import gc
import sys


def return_freed() -> None:
    """Give freed memory back to the system, on Linux: glibc keeps tensors of up to 32 MB for later ones."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
        if trim is not None:
            trim(0)
