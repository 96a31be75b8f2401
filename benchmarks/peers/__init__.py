"""The workloads in the words of each engine, one module an engine, each run by an interpreter of its own.

Every engine does what its documentation would have it do. A node writes one small value to an in-memory
target, or returns it where the engine has no targets, and completeness is checked as that engine does.
"""
