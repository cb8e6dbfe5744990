"""The wire: names, requests, answers and errors that client and server share.

Standard library only, so that any program can use it without Arrow. The normative text is
``docs/protocol.md``.
"""
