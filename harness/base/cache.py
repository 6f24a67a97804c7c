"""Where the package keeps what it downloads and builds."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache() -> Path:
    """Return the folder for what is downloaded and built: $HARNESS_CACHE, or ~/.cache/moe-safety-harness."""
    named = os.environ.get("HARNESS_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "moe-safety-harness"
