"""The launcher, before and around Envoy: command line, settings, bootstrap, `Server` in Python code."""
