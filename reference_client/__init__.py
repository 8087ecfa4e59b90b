"""The reference client: an asyncio library that reconnects and resumes, and the command roomwire-chat.

The package imports `protocol` and shares no code with the reference server. It has three layers, and imports only
point down: `chat` (the command), the modules of this folder (the library), `session` (the logic, without I/O). All
three share `events` and `errors`.
Everything that a peer sent goes through `chat.render.harmless` before it reaches a terminal.
"""
