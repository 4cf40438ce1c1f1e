"""Where this environment's libpython is, for who starts an Envoy without the launcher: see docs/envoy.md."""

from .launcher.environ import libpython_path as libpython_path
