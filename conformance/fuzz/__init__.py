"""Fuzzing Roomwire: strategies, a model of a server's behaviour, and what drives them against programs.

`strategies` draws frames, valid and broken; `steps` and `generate` make scripts of several connections; `model` says
what a server may answer to them; `player` runs a script over a `network`, which may be sockets or a simulation;
`machine` is the same as a hypothesis state machine. `server`, `octets` and `codec` are the fuzzers of
`roomwire-check fuzz`.
"""
