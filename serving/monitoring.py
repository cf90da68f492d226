"""The log, one line of JSON for each request and event, and what Prometheus may ask.

Never a message's text, a key or a query string; no label holds an identity or a conversation.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_FIRST = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_TOTAL = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


class JsonLines(logging.Formatter):
    """A record as one JSON object; of an exception the kind and the places only, for its message may hold values."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _OWN}
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["at"] = _places(record)
        return json.dumps(line, ensure_ascii=False, default=str)


def _places(record: logging.LogRecord) -> list[str]:
    import traceback

    frames = traceback.extract_tb(record.exc_info[2]) if record.exc_info else []
    return [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in frames[-8:]]


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send the gateway's log there, and what uvicorn warns of."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name, at in (("serving", level), ("uvicorn", logging.WARNING), ("asyncio", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(at)


class Metrics:
    """All of a gateway's metrics, in a registry of its own, so that two in one process (tests) do not mix."""

    def __init__(self, domain: str) -> None:
        self.registry = CollectorRegistry()
        self.domain = domain

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"flywheel_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"flywheel_{name}", text, labels, registry=self.registry)

        self.requests = counter("requests", "HTTP requests", "route", "method", "status")
        self.answers = counter("answers", "Answers by how they ended", "finish_reason")
        self.tokens = counter("tokens", "Tokens read and written", "kind")
        self.feedback = counter("feedback", "Feedback rows stored", "kind")
        self.switches = counter("switches", "Times that another version took the traffic")
        self.serve_failures = counter(
            "serve_failures", "Times that a version could not be served, and the old one stayed"
        )
        self.in_flight = gauge("streams_in_flight", "Answers being given")
        self.served = gauge("served_version_info", "1 for the version that answers", "domain", "version", "digest")
        self.engine_up = gauge("engine_up", "1 while the engine answers and holds the served version")
        self.store_up = gauge("store_up", "1 while the database answers")
        self.last_night = gauge(
            "last_night_timestamp_seconds", "When the last night that did not fail ended (Unix); 0 for never"
        )
        self.last_switch = gauge("last_switch_seconds", "From seeing the alias to traffic, the last time")
        self.first_token = Histogram(
            "flywheel_first_token_seconds", "To the first text", buckets=_FIRST, registry=self.registry
        )
        self.retrieval = Histogram(
            "flywheel_retrieval_seconds", "To the passages of a question", buckets=_FIRST, registry=self.registry
        )
        self.latency = Histogram(
            "flywheel_answer_seconds", "To the whole answer", buckets=_TOTAL, registry=self.registry
        )

    def show_served(self, version: str, digest: str) -> None:
        """Say which version answers now, and no other."""
        self.served.clear()
        self.served.labels(domain=self.domain, version=version, digest=digest[:16]).set(1)

    def text(self) -> bytes:
        """Everything, in Prometheus' text form."""
        return generate_latest(self.registry)
