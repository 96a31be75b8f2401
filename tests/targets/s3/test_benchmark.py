"""The contestants of `benchmarks.s3` answer, at sizes at which nothing can be measured. No time is asserted."""

from __future__ import annotations

import pytest

from benchmarks import fresh
from benchmarks.s3 import Line, compared
from examples.servers import S3Server


@pytest.fixture
def store(s3: S3Server, bucket: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ENDPOINT", s3.endpoint)
    monkeypatch.setenv("S3_ACCESS_KEY", s3.access_key)
    monkeypatch.setenv("S3_SECRET_KEY", s3.secret_key)
    monkeypatch.setenv("S3_REGION", s3.region)
    monkeypatch.setenv("S3_BUCKET", bucket)
    monkeypatch.setenv("S3_PREFIX", place.removeprefix(f"s3://{bucket}/"))


@pytest.mark.usefixtures("store")
def test_asyncflow_answers_as_one_does_by_hand() -> None:
    assert fresh.run("s3_by_hand", "fill", 5)["status"] == "ok"
    for workload in ("small", "large", "exists"):
        answers = {engine: fresh.run(engine, workload, 5) for engine in ("s3_target", "s3_by_hand")}
        assert answers["s3_target"].keys() == answers["s3_by_hand"].keys(), answers
        assert {answer["status"] for answer in answers.values()} == {"ok"}, answers


def test_goals_are_limits_of_what_they_are_about() -> None:
    answers = {"s3_target": [{"s": 2.0}, {"s": 3.0}, {"s": 30.0}], "s3_by_hand": [{"s": 2.0}, {"s": 2.0}, {"s": 2.0}]}
    assert compared(answers, "s") == (3.0, 2.0, 1.5)
    assert Line("x", 1, "s", 3.0, 2.0, 1.5, None, "ratio", 1.15).met is False
    assert Line("x", 1, "s", 3.0, 2.0, 1.5, None, "ratio", 1.5).met is True
    assert Line("x", 1, "s", 3.0, None, None, 16.0, "luigi", 5).met is True
    assert Line("x", 1, "s", 3.0, None, None, 14.0, "luigi", 5).met is False
    assert Line("x", 1, "MB", 64.0, 60.0, None, None, "asyncflow", 64).met is True
    assert Line("x", 1, "s", 3.0, 2.0, 1.5).met is None
    assert Line("x", 1, "s", 3.0, None, None, 16.0, "luigi", 5).cells()[-3:] == [">= 5x Luigi", "yes", "16 (5.33x)"]
