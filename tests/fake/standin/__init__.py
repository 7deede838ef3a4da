"""The Azure stand-in: what a registry's cloud says and refuses, on ports of 127.0.0.1.

Each module plays one host of the cloud (imds, entra, acr, storage, hub) or holds one thing that
all of them need (wire, faults, recorder, tokens, settings, tls, origin). `../azure.py` starts it.
"""
