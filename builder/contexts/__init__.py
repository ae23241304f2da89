"""Contexts that are not a directory of this machine: archives, git repositories, URLs. They become snapshots.

Source: docker buildx build reference (PATH | URL | -, --build-context); BuildKit's behaviour: what is fetched is taken
as it is, with the owners that an archive names, and without regard to a .dockerignore in it.
"""
