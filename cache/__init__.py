"""The store: content in, content out. Knows no Dockerfile and no sandbox."""
