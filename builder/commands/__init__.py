"""One module per subcommand: wiring only, imported when called."""
