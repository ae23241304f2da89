"""Ways to merge layers where overlayfs cannot be used as it is, and the choice among them."""
