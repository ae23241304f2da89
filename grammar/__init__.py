"""The Dockerfile language: text in, typed instructions out. No I/O, no environment."""
