"""Fuzzing: hypothesis strategies, a model of what servers may do, and the fuzzers of `roomwire-check fuzz`.

`strategies` draws frames, valid and broken; `machine` is the model as a hypothesis state machine. In `server` a player
runs scripts of several connections over a network, which may be sockets or a simulation. In `client` the player is a
client's server and application. `codec` compares codecs.
"""
