"""What `roomwire-check init` writes: programs and files to begin with, which stand alone."""
