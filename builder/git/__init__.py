"""Git repositories: which commit a reference means, fetching it into the store, checking it out. Knows no Dockerfile."""
