"""Tests of `aiovoy upstream`, the server without Envoy."""
