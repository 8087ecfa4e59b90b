"""The reference client: an asyncio library that reconnects and resumes, and the command roomwire-chat.

It stands on `protocol` alone and shares no code with the reference server. Whatever a peer sent goes through
`render.harmless` before it reaches a terminal.
"""
