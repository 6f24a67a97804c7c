"""One file for each figure: a function from computed values to a matplotlib figure."""
