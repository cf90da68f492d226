"""OpenCompass's side of a domain's benchmarks: from what evaluation.yaml names to the one configuration that it runs.

Runs only in the evaluation environment, as `python -m tasks.evaluate.run.opencompass_sets FOLDER`: reads
FOLDER/request.json, writes the configuration and FOLDER/rows.json (whose line is which item), and starts OpenCompass.
Limits: one question, one greedy answer; few-shot examples that do not fit the model are left out by OpenCompass.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from mmengine.config import Config, ConfigDict
from opencompass import configs
from opencompass.utils import datasets as loading
from opencompass.utils.build import build_dataset_from_cfg
from opencompass.utils.run import match_cfg_file

from tasks.core.files import digest_of, write_json
from tasks.evaluate.run.chat_prompts import scored_apart

KINDS = ("GenInferencer", "PPLInferencer")


class SetRefused(ValueError):
    """A benchmark cannot be run as it stands; the message names it."""


def build(folder: Path) -> Path:
    """Write the configuration of the request in `folder`, and what its rows are; returns the configuration's path."""
    loading.download_dataset = _refuse_to_fetch
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    data_sets, rows = [], {}
    for asked in request["sets"]:
        try:
            found = _found(asked)
            rows[asked["name"]] = _rows(found, asked["most"])
        except Exception as error:  # a configuration is a program: whatever it does wrong is told by its set's name
            raise SetRefused(f"the set {asked['name']}: {error}") from error
        data_sets += [one for one in found if one["abbr"] in rows[asked["name"]]]
    write_json(folder / "rows.json", rows)
    parts = {"models": request["models"], "datasets": data_sets, "infer": request["infer"], "eval": request["eval"]}
    path = folder / "config.py"
    Config(parts, format_python_code=False).dump(path)
    return path


def _refuse_to_fetch(path: str, cache: str, *_: Any) -> NoReturn:
    raise SetRefused(
        f"its data are not here: {Path(cache or '.').absolute() / path} is missing, and nothing is fetched"
    )


def _found(asked: dict[str, Any]) -> list[ConfigDict]:
    """The data sets of one benchmark's configuration, under names of ours."""
    config = Config.fromfile(_path_of(asked), format_python_code=False)
    every = [one for key in config if key.endswith("_datasets") or key == "datasets" for one in config[key]]
    if not every:
        raise SetRefused("its configuration defines no *_datasets")
    known = [str(one.get("abbr", "")) for one in every]
    if unknown := set(asked["only"]) - set(known):
        raise SetRefused(f"`only:` names {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    chosen = [one for one, abbr in zip(every, known, strict=True) if not asked["only"] or abbr in asked["only"]]
    for number, one in enumerate(chosen):
        _prepare(one, f"{asked['name']}_{number:03d}")
    return chosen


def _path_of(asked: dict[str, Any]) -> str:
    if asked["config"]:
        return str(asked["config"])
    folder = Path(configs.__path__[0])
    try:
        matched = match_cfg_file([str(folder / "datasets"), str(folder / "dataset_collections")], asked["opencompass"])
    except ValueError:
        raise SetRefused(f"OpenCompass has no configuration of data sets called {asked['opencompass']}") from None
    return str(matched[0][1])


def _prepare(one: ConfigDict, abbr: str) -> None:
    """A data set's configuration as it is run here: asked once, by an inferencer that the project's models serve."""
    inferencer = _name(one["infer_cfg"]["inferencer"]["type"])
    if inferencer not in KINDS or one["infer_cfg"]["inferencer"].get("multiround"):
        raise SetRefused(
            f"{one.get('abbr')} is asked by {inferencer}; {' and '.join(KINDS)} of one round are supported"
        )
    one["abbr"] = abbr
    for repeated in ("n", "k"):  # an answer is greedy, so asking again gives the same
        one.pop(repeated, None)
    if inferencer == "PPLInferencer":
        key = "prompt_template" if "prompt_template" in one["infer_cfg"] else "ice_template"
        template = one["infer_cfg"][key]["template"]
        if isinstance(template, dict) and not set(template) <= {"begin", "round", "end"}:
            one["infer_cfg"][key]["template"] = scored_apart(template)


def _name(kind: Any) -> str:
    """The last part of a type, which a configuration gives as a text or as what it imported."""
    return str(getattr(kind, "__name__", kind)).rpartition(".")[2]


def _rows(data_sets: list[ConfigDict], most: int | None) -> dict[str, dict[str, Any]]:
    """Abbreviation → its evaluator, and the item of each row with OpenCompass's own name for the row.

    An item is known by the hash of its question and its right answer. With `most`, those with the smallest hashes are
    asked, whatever data set they are in.
    """
    found = {one["abbr"]: list(_items(one)) for one in data_sets}
    every = sorted({identity for items in found.values() for identity, _ in items})
    wanted = set(every[:most])
    rows = {}
    for one in data_sets:
        places = [place for place, (identity, _) in enumerate(found[one["abbr"]]) if identity in wanted]
        if most is not None:
            if one["reader_cfg"].get("test_range") is not None:
                raise SetRefused("its configuration takes a part already (test_range); leave out `most:`")
            one["reader_cfg"]["test_range"] = f"[:0] + {places}"
        if places:
            items = [found[one["abbr"]][place] for place in places]
            evaluator = _name(one["eval_cfg"]["evaluator"]["type"])
            rows[one["abbr"]] = {"evaluator": evaluator, "rows": [list(item) for item in items]}
    if not rows:
        raise SetRefused("its data hold no item")
    return rows


def _items(one: ConfigDict) -> Iterator[tuple[str, str]]:
    """(hash, OpenCompass's name) of each row that would be asked."""
    reader = build_dataset_from_cfg(one).reader
    for row in reader.dataset["test"]:
        name = f"{row['subdivision']}_{row['idx']}"
        asked = {key: row.get(key) for key in reader.input_columns}
        gold = row.get(reader.output_column) if reader.output_column else None
        if gold is None:  # the evaluator looks into the row
            asked = {key: value for key, value in row.items() if key not in ("subdivision", "idx")}
        yield digest_of(json.loads(json.dumps([asked, gold], default=str))), name


if __name__ == "__main__":
    place = Path(sys.argv[1])
    written = build(place)
    # Its own command, in this process.
    from opencompass.cli.main import main

    sys.argv = ["opencompass", str(written), "-w", str(place / "runs"), "--debug"]
    main()
