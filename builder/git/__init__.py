"""Git repositories: which commit a reference means, fetching and checking it out. Knows no Dockerfile."""
