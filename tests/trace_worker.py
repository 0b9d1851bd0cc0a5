"""Makes traces in a process of its own, to be killed by test_traces.py."""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers.problems import load_problems
from helpers.profiles import PROFILES
from helpers.traces import generate_traces

folder, output, batch, tokens = sys.argv[1:]
torch.set_num_threads(1)
profile = replace(
    PROFILES["mini"],
    teacher=folder,
    generation_batch=int(batch),
    max_new_tokens=int(tokens),
)
generate_traces(
    load_problems("mini", "validation", limit=48),
    AutoModelForCausalLM.from_pretrained(folder).eval(),
    AutoTokenizer.from_pretrained(folder),
    Path(output),
    profile=profile,
    progress=False,
)
