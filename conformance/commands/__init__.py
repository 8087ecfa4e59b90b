"""The subcommands of roomwire-check, one module each."""
