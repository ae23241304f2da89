"""The network of steps: namespaces that are connected with the machine's network by a bridge, or by a program."""
