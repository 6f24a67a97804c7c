"""One plugin of each kind for moe-safety-harness."""
