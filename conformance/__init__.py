"""The conformance suite of Roomwire/1: checks servers, clients and codecs against SPEC.md, octet by octet.

It shares frames, their layout and their codec (`protocol`) with the reference programs, but no connection: a shared
state machine would share its bugs.
"""
