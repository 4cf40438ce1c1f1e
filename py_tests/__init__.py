"""Tests of the whole server, over real sockets: a folder for each side of it, and `harness` with what they share.

A server under test imports its application from the test's own module, with the repository's root on its path.
"""
