"""Clients that break the rules, and applications that do: what they get, and that nothing else suffers."""
