"""How each kind of operation is cached, and how it runs."""
