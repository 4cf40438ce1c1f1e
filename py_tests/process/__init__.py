"""The process that an application finds itself in: interpreter, environment, libraries, children, descriptors,
standard streams, memory.
"""
