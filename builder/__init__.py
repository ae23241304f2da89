"""The Dockerfile compiler: plan, solve, run, export. Uses `grammar` and `cache`; nobody imports it."""

__version__ = "0.1.0"
