"""The programs of the guide do what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from asyncflow import build
from examples.servers import S3Server
from tests.targets.s3.conftest import store_of

GUIDE = Path(__file__).parents[3] / "docs" / "s3.md"


async def test_the_guide(s3: S3Server, client: Any) -> None:
    text = GUIDE.read_text(encoding="utf-8")
    text = text.replace("http://localhost:8333", s3.endpoint)
    assert s3.access_key in text
    assert s3.secret_key in text
    await client.create_bucket(Bucket="shop")
    space: dict[str, Any] = {"__name__": "guide"}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, str(GUIDE), "exec", dont_inherit=True), space)
    assert space["store"].endpoint_url == store_of(s3).endpoint_url
    (await build([space["Total"](), space["Parts"]()])).raise_for_failure()
    assert await space["Total"]().output().read() == {"cents": 250_000}
    assert await space["Parts"]().output().list() == ["part-0", "part-1", "part-2"]
