"""The built-in judge: the keyword rules, and a linear classifier on hashed words for what no rule decides."""
