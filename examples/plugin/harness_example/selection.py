"""A selection method: by how surely harmful prompts use an expert more."""

from __future__ import annotations

import numpy as np
import pandas as pd


def surprise(table: pd.DataFrame) -> pd.Series:
    """Return minus the decimal logarithm of the p-value of each row of the expert table."""
    return -np.log10(table["p_value"].clip(lower=1e-300))
