"""Luigi's ``S3Target``, one object after the other, as its worker writes them."""

from __future__ import annotations

import os
import time
from typing import Any

from luigi.contrib.s3 import S3Client, S3Target
from luigi.format import Nop

from .protocol import Timed, main
from .s3_store import ACCESS_KEY, BUCKET, BYTES, ENDPOINT, REGION, SECRET_KEY, new_prefix


def small(n: int) -> Timed:
    """Write ``n`` small objects, and read them."""
    client = S3Client(
        aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, endpoint_url=ENDPOINT, region_name=REGION
    )
    prefix, body = new_prefix(), os.urandom(BYTES)

    def target(number: int) -> Any:
        return S3Target(f"s3://{BUCKET}/{prefix}/{number}", client=client, format=Nop)

    def write(number: int) -> None:
        with target(number).open("w") as file:
            file.write(body)

    def read(number: int) -> None:
        with target(number).open("r") as file:
            if file.read() != body:
                raise RuntimeError(f"object {number} is not what was written")

    def timed() -> dict[str, Any]:
        write(n)  # it has a connection
        begun = time.perf_counter()
        for number in range(n):
            write(number)
        written = time.perf_counter()
        for number in range(n):
            read(number)
        return {"write_s": written - begun, "read_s": time.perf_counter() - written}

    return timed


if __name__ == "__main__":
    main({"small": small})
