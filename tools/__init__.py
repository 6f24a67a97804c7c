"""Scripts that make what the package and its documentation ship."""
