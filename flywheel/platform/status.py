"""What `flywheel status` says of the platform: services, the version that is served, nights, the alarm, the disk.

Everything is asked of the running services or read from the store; what cannot be had is None, with no error: status
must answer on a broken installation above all.
"""

from __future__ import annotations

import contextlib
import shutil
from typing import Any

from flows.live import used
from flywheel.platform.platform import Platform, Service, ask
from flywheel.platform.up import is_wanted, states
from tasks.core.clock import now
from tasks.core.errors import FlywheelError
from tasks.evaluate.card.usage import share
from tasks.registry.versions import Registry
from tasks.store import ledger
from tasks.store.nights import last_nights, overdue
from tasks.store.store import Store

NIGHTS = 5
LOW_DISK = 2 * 2**30


def look(platform: Platform) -> dict[str, Any]:
    """Everything about the platform, for --json. `attention` lists what somebody should look at."""
    found = states(platform)
    services = {service.name: _service(service, found) for service in platform.services()}
    state = "up" if found is not None else ("broken" if is_wanted(platform) else "down")
    free = shutil.disk_usage(platform.root).free
    return {
        "platform": state,
        "services": services,
        "serving": _served(platform) if state == "up" else None,
        **_nights(platform),
        "next_night": _next_run(platform) if state == "up" else None,
        "disk_free_bytes": free,
    }


def attention(found: dict[str, Any]) -> list[str]:
    """What somebody should look at, in sentences. A platform that was taken down on purpose is not among it."""
    problems = [f"ALARM: {found['alarm']}"] if found["alarm"] else []
    if found["platform"] == "broken":
        problems.append("supervisord is gone: `make up` starts the platform again, `make down` stops it")
    if found["platform"] == "up":
        down = [(name, row) for name, row in found["services"].items() if not row["ready"]]
        problems += [f"{name} is not ready: {row['note']}" for name, row in down]
        problems += ((found["serving"] or {}).get("problems") or {}).values()
    if found["disk_free_bytes"] < LOW_DISK:
        problems.append(f"only {found['disk_free_bytes'] / 2**30:.1f} GB of disk are free")
    return problems


def _service(service: Service, found: dict[str, dict[str, Any]] | None) -> dict[str, Any]:
    state = "elsewhere"
    if service.ours:
        state = found[service.name]["statename"].lower() if found and service.name in found else "stopped"
    note = "stopped" if state == "stopped" and service.ours else service.check()
    return {"state": state, "ready": not note, "note": note, "address": service.address}


def _served(platform: Platform) -> dict[str, Any] | None:
    """What the gateway serves now, the challenger where there is one, and why it serves nothing newer."""
    found = ask(f"{platform.params.serving.address}/readyz", ours=True)
    told = ("version", "digest", "challenger", "problems")
    return {key: found.get(key) for key in told} if isinstance(found, dict) else None


def _nights(platform: Platform) -> dict[str, Any]:
    """The last nights, newest first, the alarm and what users did; all empty where there is no store yet."""
    params = platform.params
    try:
        store = Store.open(home=platform.root)
    except FlywheelError:
        return {"nights": [], "alarm": None, "usage": {}, "approval": None}
    with contextlib.closing(store):
        rows = [
            {
                "night": night.number,
                "started_at": night.started_at.isoformat(timespec="seconds"),
                "outcome": night.outcome or "open",
                "rows": night.rows,
                "version": night.version,
                "reason": night.reason,
            }
            for night in last_nights(store, params.domain, NIGHTS)
        ]
        alarm = overdue(store, params.domain, params.nightly.alarm_hours, now())
        found = used(Registry(params.domain, platform.root), store)
        asked = ledger.question(store, params.domain)
        if asked and (asked.approved is not None or asked.version in [one["version"] for one in found.values()]):
            asked = None  # answered, or overridden
        stands = asked and (ledger.refusal(asked, params.nightly.approval_hours) or ledger.WAITS.format(asked.version))
    return {"nights": rows, "alarm": alarm, "usage": found, "approval": stands}


def _next_run(platform: Platform) -> str | None:
    """When the next night is scheduled, in UTC."""
    body = {
        "deployments": {"name": {"any_": ["nightly"]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        "sort": "EXPECTED_START_TIME_ASC",
        "limit": 1,
    }
    found = ask(f"{platform.prefect_api}/flow_runs/filter", body)
    return str(found[0]["expected_start_time"]) if found else None


def words(found: dict[str, Any]) -> str:
    """The same for people."""
    lines = [f"platform: {found['platform']}"]
    if found["platform"] != "down":
        for name, row in found["services"].items():
            mark = "ready" if row["ready"] else row["state"]
            lines.append(f"  {name:<10} {mark:<9} {row['address']}" + (f"  ({row['note']})" if row["note"] else ""))
    if served := found["serving"]:
        also = f", version {served['challenger']} beside it" if served["challenger"] else ""
        package = f", package {served['digest'][:12]}" if served["digest"] else ""
        lines.append(f"  serving    version {served['version']}{package}{also}")
    for night in found["nights"]:
        line = f"  night {night['night']:<4} {night['outcome']:<8} {night['started_at']}  {night['reason'] or ''}"
        lines.append(line.rstrip())
    for name, one in found["usage"].items():
        lines.append(f"  {name:<10} {one['answers']} answers, resolved {share(one['resolved'], one['judged'])}")
    lines += [f"  approval   {found['approval']}"] if found["approval"] else []
    if found["next_night"]:
        lines.append(f"  next night {found['next_night']}")
    lines.append(f"  disk       {found['disk_free_bytes'] / 2**30:.1f} GB free")
    return "\n".join([*lines, *found["attention"]])
