"""Namespaces, mounts, privileges: a process in a root of its own."""
