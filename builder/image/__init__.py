"""OCI nouns and the files they live in: config, manifest, layout, archive."""
