"""What the server tells its operator: metrics and health over HTTP."""
