"""The subcommands of roomwire-server, one module each."""
