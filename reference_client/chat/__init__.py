"""roomwire-chat: the interactive chat, and `send`, `tail` and `stop` for scripts."""
