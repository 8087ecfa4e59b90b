"""The conformance suite of Roomwire/1: checks servers, clients and codecs against SPEC.md, octet by octet.

It shares the declarations of `protocol.wire` with the reference programs, and nothing else: a shared state
machine would share its bugs.
"""
