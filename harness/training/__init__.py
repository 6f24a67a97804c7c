"""Expert training: the bank, examples, the loop and deltas."""
