"""Real servers, started privately on free ports: for the examples, the tests and the benchmarks.

Each is a context manager that gives what a client has to know, and is stopped when its block ends::

    with seaweedfs() as s3:
        print(s3.endpoint, s3.access_key, s3.secret_key)

``ServerMissing`` says what is to be installed where the program cannot be found.
"""

from .process import ServerMissing
from .s3 import S3Server, moto, seaweedfs

__all__ = ["S3Server", "ServerMissing", "moto", "seaweedfs"]
