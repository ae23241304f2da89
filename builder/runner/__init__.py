"""Containers: a writable layer over an image, and a process in it."""
