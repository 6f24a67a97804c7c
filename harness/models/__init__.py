"""Models: loading, the MoE adapter, checkpoints, and the ones that need no hub."""
