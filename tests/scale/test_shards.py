"""helpers.scale.shards: files of several hands; see also test_parallel.py."""

import json
from dataclasses import asdict, replace

import tiny

from helpers.problems import load_problems
from helpers.scale.shards import answered

MINI = tiny.PROFILES["mini"]


def test_answered_whoever_wrote_the_file(tmp_path):
    asked = load_problems("mini", "train", limit=MINI.traces)
    assert answered(MINI.traces_path, asked, MINI)  # the shipped file
    assert not answered(MINI.traces_path, asked[:-1], MINI)
    assert not answered(MINI.traces_path, asked[::-1], MINI)
    hot = replace(MINI, sampling_temperature=2.0)
    assert not answered(MINI.traces_path, asked, hot)
    path, record = tmp_path / "t.jsonl", asdict(MINI.sampling(seed=8))
    assert not answered(path, tiny.problems(1), MINI)
    trace = tiny.traces(1)[0] | {"sampling": {"backend": "vllm", **record}}
    path.write_text(json.dumps(trace) + "\n")
    assert answered(path, tiny.problems(1), MINI)
