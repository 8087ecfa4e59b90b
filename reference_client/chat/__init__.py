"""roomwire-chat: the line-mode terminal, and sending and tailing from scripts."""
