"""Models that the package builds: the demo model, smol-moe, and dense models made sparse."""
