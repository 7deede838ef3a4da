"""The Azure stand-in: what a registry's cloud says and refuses, on ports of 127.0.0.1.

Each module plays one host of the cloud (imds, arc, hosted, entra, acr, storage, others) or holds
one thing that several of them need (platform, assertions, tokens, grants, settings, wire, faults,
recorder, vault, tls, origin). `../azure.py` starts it.
"""
