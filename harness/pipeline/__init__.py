"""A run, one file per step: plan, capture, select, train, answer, judge, measure; `pipeline` is the main path."""
