"""The release card: one page (HTML, and Markdown) that says what was released, why, and what it is worth.

Rendered outside the stages from their files, with charts inlined as SVG: no script, no network. Every text that a model
or a source wrote is escaped.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tasks.core import layout
from tasks.core.base_model import found_in
from tasks.core.errors import FlywheelError
from tasks.core.files import write_text
from tasks.core.graph import training_stages
from tasks.evaluate.card.categories import changed
from tasks.evaluate.card.funnel import Funnel, draw_funnel, read_funnel
from tasks.evaluate.card.language import lacking
from tasks.evaluate.card.usage import USAGE, usage_rows, usage_section

if TYPE_CHECKING:
    import jinja2

SAMPLES = 5
INK = "#333333"


class CardError(FlywheelError):
    """A card cannot be rendered because a file it shows is missing."""


@dataclass(frozen=True)
class ScoreRow:
    """One metric of one evaluation set, before (champion) and after (candidate): (value, low, high)."""

    set: str
    metric: str
    before: tuple[float, float, float] | None
    after: tuple[float, float, float] | None


@dataclass(frozen=True)
class Sample:
    """One question with its reference and both answers."""

    question: str
    reference: str
    before: str
    after: str


@dataclass(frozen=True)
class Card:
    """All that the page shows; `loss` has rows of step, split and value."""

    title: str
    verdict: dict[str, Any]
    scores: list[ScoreRow]
    counts: list[tuple[str, int]]
    loss: list[tuple[int, str, float]]
    samples: list[Sample]
    regressions: list[Sample]
    licences: list[dict[str, str]]
    lineage: dict[str, Any] = field(default_factory=dict)
    funnel: Funnel | None = None
    costs: list[dict[str, str]] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)
    categories: list[dict[str, Any]] = field(default_factory=list)
    usage: list[tuple[str, ...]] = field(default_factory=list)


def verdict_rows(verdict: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a criterion, `met` in words, `at` on its line; a difference that is only reported has neither."""
    rows = [
        {**row, "met": "yes" if row["passed"] else "no", "at": _on_its_line(row)} for row in verdict.get("criteria", [])
    ]
    told = {"kind": "", "margin": None, "met": "reported", "at": None}
    return rows + [{**row, **told} for row in verdict.get("reported", [])]


def _on_its_line(row: Mapping[str, Any]) -> dict[str, float] | None:
    """Where a gain or a loss lies; a floor is no difference."""
    if row["kind"] == "floor":
        return None
    way = -1 if row["kind"] == "non_inferiority" else 1
    return forest(way * row["low"], way * row["estimate"], way * row["high"], row["margin"])


def forest(low: float, mid: float, high: float, margin: float) -> dict[str, float]:
    """A difference, better above 0, in percent of a line's width: 50 is none, the margin lies on the left."""
    widest = max(abs(low), abs(high), margin) or 1.0
    values = {"low": low, "high": high, "mid": mid, "margin": -margin}
    return {name: round(50 + 48 * value / widest, 1) for name, value in values.items()}


def render_card(root: Path = Path(), lineage: Mapping[str, Any] | None = None) -> Path:
    """Write reports/release_card.html and .md; returns the HTML's path. Raises CardError: there is no verdict yet."""
    card = collect(root, dict(lineage or {}))
    write_text(root / layout.CARD_HTML, _render("template.html", card, draw(card), escape=True))
    write_text(root / layout.CARD_MARKDOWN, _render("template.md", card, {}, escape=False))
    return root / layout.CARD_HTML


def collect(root: Path, lineage: dict[str, Any] | None = None) -> Card:
    """Read what the stages wrote. A part whose file is missing is left out of the page; the verdict must be there."""
    path = root / layout.VERDICT
    if not path.is_file():
        raise CardError(f"{path} is missing: run a release first (`make run`)")
    name = yaml.safe_load((root / layout.PARAMS).read_text(encoding="utf-8"))["domain"]
    about = root / layout.DOMAINS / name / "domain.yaml"
    domain = yaml.safe_load(about.read_text(encoding="utf-8")) if about.is_file() else {}
    loss = _csv(root / layout.PLOTS / "sft_loss.csv")
    verdict = json.loads(path.read_text(encoding="utf-8"))
    samples, regressions = read_samples(root)
    return Card(
        title=str(domain.get("title", name)),
        verdict=verdict,
        scores=read_scores(root / layout.PLOTS / "scores.csv"),
        counts=[(row["stage"], int(row["examples"])) for row in _csv(root / layout.PLOTS / "data_counts.csv")],
        loss=[(int(float(row["step"])), row["split"], float(row["loss"])) for row in loss],
        samples=samples,
        regressions=regressions,
        licences=licences(domain, found_in(root / layout.BASE_MODEL)),
        lineage=lineage or {},
        funnel=read_funnel(root / layout.RECEIPT) if (root / layout.RECEIPT).is_file() else None,
        costs=read_costs(root),
        lacks=lacks(domain),
        categories=changed(verdict, _jsonl(root / layout.EVALUATION_ITEMS / "domain.jsonl")),
        usage=usage_rows(_json(root / USAGE)),
    )


def read_scores(path: Path) -> list[ScoreRow]:
    """reports/plots/scores.csv (set, metric, who, value, low, high), the two sides of a metric on one row."""
    sides: dict[tuple[str, str], dict[str, tuple[float, float, float]]] = {}
    for row in _csv(path):
        figures = (float(row["value"]), float(row["low"]), float(row["high"]))
        sides.setdefault((row["set"], row["metric"]), {})[row["who"]] = figures
    return [ScoreRow(*key, who.get("champion"), who.get("candidate")) for key, who in sides.items()]


def read_samples(root: Path, count: int = SAMPLES) -> tuple[list[Sample], list[Sample]]:
    """Of the domain's questions that the two sides answer differently some, first one that became right; and the worst.

    The worst lost their right answer, or else most agreement with the reference (ROUGE-L).
    """
    before, after = (_answers(root / layout.EVALUATION / who) for who in ("champion", "candidate"))
    differ = {key for key in before.keys() & after if before[key]["text"] != after[key]["text"]}
    items = [item for item in _jsonl(root / layout.EVALUATION_ITEMS / "domain.jsonl") if item["id"] in differ]
    gained = {key: tuple(new - old for new, old in zip(after[key]["scores"], before[key]["scores"], strict=True))
              for key in differ}  # fmt: skip
    became_right = min((key for key in differ if gained[key][0] > 0), default="")
    told = sorted(items, key=lambda item: item["id"] != became_right)
    lost = [item for item in items if gained[item["id"]] < (0, 0)]
    lost.sort(key=lambda item: (gained[item["id"]], item["id"]))
    samples, worst = (
        [
            Sample(item["prompt"], item.get("reference", ""), before[item["id"]]["text"], after[item["id"]]["text"])
            for item in some[:count]
        ]
        for some in (told, lost)
    )
    return samples, worst


def _answers(folder: Path) -> dict[str, dict[str, Any]]:
    """The answers of a side by the ids of their items, each with `scores`: whether it is right, and its ROUGE-L."""
    rouge = {row["id"]: row["value"] for row in _jsonl(folder / "scores.jsonl") if row["metric"] == "rouge_l"}
    rows = _jsonl(folder / "answers.jsonl")
    return {row["id"]: {**row, "scores": (int(row.get("right") or 0), rouge.get(row["id"], 0.0))} for row in rows}


def right_answers(verdict: Mapping[str, Any]) -> str:
    """How many answers are right, before and after, in words; "" where no item has key facts."""
    return next((row["reason"] for row in verdict.get("reported", []) if row["name"] == "facts_right"), "")


def read_costs(root: Path) -> list[dict[str, str]]:
    """What each training was predicted to take and what it took, a row for each figure that is known.

    A prediction speaks of the fullest GPU, or of the main memory of all processes together; a run that died and went
    on is not what was predicted. Both lie outside of the stages' outputs.
    """
    rows = []
    for stage in training_stages():
        before, after = (_json(root / layout.MEASURED / f"{stage}{end}.json") for end in (".predicted", ""))
        time, memory, parameters = (before.get(name, {}) for name in ("time", "memory", "parameters"))
        tries = after.get("attempts", 1)
        gpu = max((one["peak_gpu_bytes"] for one in after.get("processes", [])), default=0)
        peak, trained = gpu or after.get("peak_bytes"), after.get("trainable_parameters")
        figures = (
            (
                f"time ({tries} attempts)" if tries > 1 else "time",
                time.get("seconds"),
                after.get("seconds"),
                1,
                "0f} s",
            ),
            ("peak memory", memory.get("needed"), peak, 1 << 30, "2f} GiB"),
            ("energy", before.get("energy_kwh"), after.get("energy_kwh"), 1, "3f} kWh"),
            ("trained parameters", parameters.get("trained"), trained, 1, "0f}"),
        )
        for what, predicted, actual, unit, form in figures:
            if actual:
                told = [f"{{:,.{form}".format(value / unit) if value else "–" for value in (predicted, actual)]
                off = f"{(predicted - actual) / actual:+.0%}" if predicted else "–"
                rows.append({"stage": stage, "what": what, "predicted": told[0], "actual": told[1], "off": off})
    return rows


def licences(domain: dict[str, Any], found: Mapping[str, str] | None = None) -> list[dict[str, str]]:
    """What the release is built on: name, licence and attribution of the base model and of every source.

    `found`: what the base model's own files say of it.
    """
    rows = []
    for key in ("base_model", "human", "general", "mmlu", "safety"):
        value = domain.get(key) or []
        for source in value if isinstance(value, list) else [value]:
            fields = ("name", "licence", "attribution", "url", "licence_url")
            if key == "base_model":
                source = {**(found or {}), **source}
            rows.append({"role": key.replace("_", " "), **{field: str(source.get(field, "")) for field in fields}})
    return rows


def lacks(domain: Mapping[str, Any]) -> list[str]:
    """What the pipeline has nothing for in the domain's language; [] where the domain names none."""
    if not (code := str(domain.get("language", ""))):
        return []
    return lacking(
        code,
        dialogue=[str(source.get("language", code)) for source in domain.get("general") or []],
        embedder=bool((domain.get("embedder") or {}).get("files")),
        answering=bool(domain.get("answering")),
    )


def _render(template: str, card: Card, charts: dict[str, str], escape: bool) -> str:
    """The page, self-contained; in HTML every value is escaped except the charts, which are drawn here from numbers."""
    from markupsafe import Markup

    drawn = {name: Markup(svg) for name, svg in charts.items()}  # noqa: S704
    return (
        templates(escape)
        .get_template(template)
        .render(card=card, rows=verdict_rows(card.verdict), charts=drawn, right=right_answers(card.verdict))
    )


def templates(escape: bool = True) -> jinja2.Environment:
    """The templates beside this module; without `escape` they escape by their own filters."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=escape,  # noqa: S701 - Markdown is escaped by its own filters
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(figure=figure, cell=markdown_cell, quoted=markdown_quote, section=usage_section)
    return environment


def figure(value: Any) -> str:
    """A number to three places with a sign of its own; an interval as low to high; nothing as a dash."""
    if value is None:
        return "–"
    if isinstance(value, list | tuple):
        return f"{value[0]:.3f} ({value[1]:.3f} to {value[2]:.3f})"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def markdown_cell(value: Any) -> str:
    """Text safe inside a Markdown table: no markup, one line."""
    return _escaped(figure(value)).replace("\n", " ").replace("|", "\\|")


def markdown_quote(value: str) -> str:
    """Text safe as a Markdown quotation: each line quoted, no markup."""
    return "\n".join(f"> {line}" for line in _escaped(value).splitlines() or [""])


def _escaped(value: str) -> str:
    from html import escape

    text = escape(value, quote=False)
    for mark in "\\`*_[]#!":
        text = text.replace(mark, f"\\{mark}")
    return text


def draw(card: Card) -> dict[str, str]:
    """SVG charts by name: funnel, loss; a chart without data is left out."""
    lanes = card.funnel.lanes if card.funnel else []
    charts = {
        "funnel": draw_funnel(lanes) if lanes else None,
        "loss": _draw_loss(card.loss) if card.loss else None,
    }
    return {name: _svg(drawing) for name, drawing in charts.items() if drawing is not None}


def _draw_loss(points: list[tuple[int, str, float]]) -> Any:
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(6.4, 2.6), layout="constrained")
    ax = drawing.subplots()
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(colors=INK, labelsize=8)
    for split in dict.fromkeys(split for _, split, _ in points):
        line = [(step, value) for step, of, value in points if of == split]
        ax.plot(*zip(*line, strict=True), label=split, marker="." if len(line) < 30 else "")
    ax.set_xlabel("step", fontsize=8)
    ax.set_ylabel("loss, nats per token", fontsize=8)
    ax.legend(frameon=False, fontsize=8)
    return drawing


def _svg(drawing: Any) -> str:
    """The drawing as an <svg> element, its text kept as text."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "font.family": "sans-serif"}):
        drawing.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _json(path: Path) -> dict[str, Any]:
    """A file's content; empty where it is missing or torn (it decides nothing)."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")).items())
    except (OSError, ValueError, AttributeError):
        return {}


def _csv(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _jsonl(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return [json.loads(line) for line in text.split("\n") if line.strip()]
