"""Opening engines: one small ``Session`` protocol, one file and one table row per runtime.

This is what flies. Nothing here but ``torch_network`` imports torch, and a runtime is imported only when it is
opened.
"""
