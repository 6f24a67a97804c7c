"""What every room uses: errors, files, fingerprints, registries, schemas, progress, content."""
