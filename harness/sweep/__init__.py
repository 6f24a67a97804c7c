"""A table of runs: models x interventions x selections x objectives x seeds, in processes or on a Ray cluster."""
