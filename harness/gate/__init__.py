"""Gates: bounds that a run must be shown to keep, for CI. Reads run folders only."""
