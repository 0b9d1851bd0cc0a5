"""Model cards of the mini models: how they were made, what they score."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from helpers.evaluate import evaluate, format_accuracy
from helpers.files.disk import write_atomic
from helpers.models import Loaded, parameter_counts
from helpers.profiles import PROFILES

CARD = Path(__file__).with_name("card.md")
FORMS = {
    "thinking": "questions in the chat format, answered with a worked "
    "`<think>...</think>` and a final sentence",
    "pairs": "two questions at once, answered with one thought about both",
    "at_once": "questions in the chat format, answered at once",
    "prose": "questions followed by a worked solution in running text, never "
    "in the chat format",
    "lists": "facts, told and then asked for again by name",
    "sums": "lines of arithmetic",
    "pages": "everyday sentences and markup",
}


def score_lines(
    loaded: Loaded, splits: Mapping[str, list[dict]], *, thinks: bool
) -> Iterator[str]:
    """Accuracy by split and by the problems' `kind`, a line a measurement."""
    modes = {", at once": "free", ", forced": "think"}
    for split, problems in splits.items():
        for label, mode in ({"": "free"} if thinks else modes).items():
            done = evaluate(
                loaded, problems, profile=PROFILES["mini"], mode=mode
            )
            yield f"- {split}{label}: {done.score}"
            for kind in sorted({row.get("kind", "") for row in problems}):
                flags = done.part("kind", kind)
                if kind:
                    score = format_accuracy(sum(flags), len(flags))
                    yield f"  - {kind}: {score}"
            if thinks:
                closed = format_accuracy(done.closed, len(problems))
                yield f"  - thought closed: {closed}"


def write_card(
    recipe: Any,
    loaded: Loaded,
    folder: Path,
    *,
    seed: int,
    splits: Mapping[str, list[dict]],
    about: str,
) -> None:
    """Measure a finished model on the splits, and write its README.md.

    about: what a reader of the scores has to know of splits and model.
    """
    config = loaded.model.config
    parameters = parameter_counts(loaded.model)["total"]
    mix = [f"- {share:.0%} {FORMS[f]}" for f, share in recipe.mix.items()]
    scores = score_lines(loaded, splits, thinks=recipe.teacher)
    card = CARD.read_text(encoding="utf-8").format(
        name=recipe.name,
        architecture=type(loaded.model).__name__,
        parameters=parameters,
        megabytes=parameters * 4 / 1e6,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        rows=config.vocab_size,
        tokens=len(loaded.tokenizer),
        trained=recipe.trained,
        optimizer=recipe.optimizer,
        opening=recipe.opening_tokens,
        seed=seed,
        mix="\n".join(mix),
        limit=PROFILES["mini"].max_new_tokens,
        about=about,
        scores="\n".join(scores),
    )
    write_atomic(folder / "README.md", card)
