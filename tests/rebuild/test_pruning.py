"""helpers.rebuild.pruning: half a model, and a part of its vocabulary."""

import pytest
import tiny  # noqa: F401  Unsloth before transformers
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers.models import ModelError
from helpers.problems import load_problems
from helpers.profiles import MODELS
from helpers.rebuild.pruning import (
    RULES,
    kept_blocks,
    layer_influence,
    prune_layers,
    restore_vocabulary,
    trim_vocabulary,
)

QUESTIONS = [p["question"] for p in load_problems("mini", "test", limit=60)]
both = pytest.mark.parametrize("name", ["mini-gemma3", "mini-qwen3"])
STRANGE = "Zürich says ≈ 漢字 🙂, then <b>#!</b>"


def load(name):
    model = AutoModelForCausalLM.from_pretrained(MODELS / name)
    return model.eval(), AutoTokenizer.from_pretrained(MODELS / name)


def silence(block):
    """Its outputs become zero: it passes on what it got."""
    if hasattr(block, "post_feedforward_layernorm"):  # Gemma: after each part
        block.post_attention_layernorm.weight.data.fill_(-1.0)
        block.post_feedforward_layernorm.weight.data.fill_(-1.0)
    else:
        block.self_attn.o_proj.weight.data.zero_()
        block.mlp.down_proj.weight.data.zero_()


@torch.no_grad()
def logits(model, ids):
    return model(input_ids=torch.tensor([ids])).logits


def ids_of(tokenizer, text):
    return tokenizer(text)["input_ids"]


@both
def test_prune_layers_all_kept_changes_nothing_and_shares_nothing(name):
    model, tokenizer = load(name)
    ids = ids_of(tokenizer, QUESTIONS[0])
    whole = prune_layers(model, range(4))
    assert torch.equal(logits(model, ids), logits(whole, ids))
    for weight in whole.parameters():
        weight.data.zero_()
    assert logits(model, ids).any()


@both
def test_prune_layers_is_the_model_without_those_blocks(name):
    model, tokenizer = load(name)
    half = prune_layers(model, [0, 3])
    for block in model.model.layers[1:3]:
        silence(block)
    ids = ids_of(tokenizer, QUESTIONS[0])
    torch.testing.assert_close(logits(half, ids), logits(model, ids))
    options = {"max_new_tokens": 12, "do_sample": False}
    cached, plain = (
        half.generate(torch.tensor([ids]), use_cache=use, **options)
        for use in (True, False)
    )
    assert torch.equal(cached, plain)


@pytest.mark.parametrize("keep", [[], [1, 1], [2, 0], [0, 4], [-1, 0]])
def test_prune_layers_refuses(keep):
    with pytest.raises(ModelError, match="each once, in rising order"):
        prune_layers(load("mini-gemma3")[0], keep)


@both
def test_half_and_trimmed_student_is_an_ordinary_one(name, tmp_path):
    """Transformers alone loads it."""
    model, tokenizer = load(name)
    half = prune_layers(model, [0, 1])
    small, short, _ = trim_vocabulary(half, tokenizer, QUESTIONS)
    small.save_pretrained(tmp_path)
    short.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    reader = AutoTokenizer.from_pretrained(tmp_path)
    ids = ids_of(reader, QUESTIONS[1])
    assert ids == ids_of(short, QUESTIONS[1])
    assert torch.equal(logits(again, ids), logits(small, ids))
    assert again.config.num_hidden_layers == 2


@both
def test_trim_vocabulary_same_tokens_same_logits(name):
    model, tokenizer = load(name)
    small, short, kept = trim_vocabulary(model, tokenizer, QUESTIONS)
    assert len(kept) == len(short) == small.config.vocab_size < len(tokenizer)
    for text in QUESTIONS:
        old, new = ids_of(tokenizer, text), ids_of(short, text)
        assert [kept[i] for i in new] == old
    wide = logits(model, old)[..., kept]
    assert torch.equal(wide, logits(small, new))


@both
def test_trim_vocabulary_still_writes_any_text_and_its_end(name):
    model, tokenizer = load(name)
    small, short, kept = trim_vocabulary(model, tokenizer, QUESTIONS[:1])
    ids = ids_of(short, STRANGE)
    assert len(ids) >= len(ids_of(tokenizer, STRANGE))
    assert short.decode(ids, skip_special_tokens=True) == STRANGE
    old, new = (m.generation_config.eos_token_id for m in (model, small))
    assert [kept[i] for i in new] == old
    assert kept[short.eos_token_id] == tokenizer.eos_token_id


@both
def test_restore_vocabulary_gives_back_what_was_trimmed(name):
    model, tokenizer = load(name)
    small, short, kept = trim_vocabulary(model, tokenizer, QUESTIONS)
    ids = ids_of(tokenizer, STRANGE)
    back = restore_vocabulary(small, model, kept)
    assert torch.equal(logits(back, ids), logits(model, ids))
    assert back.generation_config.eos_token_id == (
        model.generation_config.eos_token_id
    )
    small.get_input_embeddings().weight.data[5] += 1.0  # as if it had learned
    rows = restore_vocabulary(small, model, kept).get_input_embeddings().weight
    changed = (rows != model.get_input_embeddings().weight).any(dim=-1)
    assert changed.nonzero().tolist() == [[kept[5]]]


def test_trim_vocabulary_refuses_an_output_head_of_its_own():
    model, tokenizer = load("mini-qwen3")
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    with pytest.raises(ModelError, match="tied ones alone"):
        trim_vocabulary(model, tokenizer, QUESTIONS)


def test_layer_influence_is_zero_for_a_block_that_does_nothing():
    model, tokenizer = load("mini-qwen3")
    silence(model.model.layers[2])
    batches = [torch.tensor([ids_of(tokenizer, QUESTIONS[0])])]
    influence = layer_influence(model, batches)
    assert influence[2] == pytest.approx(0.0, abs=1e-6)
    assert min(influence[:2] + influence[3:]) > 0.001
    asked = model(input_ids=batches[0], output_hidden_states=True)
    states = asked.hidden_states  # the last one of these is normalized
    cosine = torch.cosine_similarity(states[1], states[2], dim=-1)
    assert influence[1] == pytest.approx(1 - cosine.mean().item(), abs=1e-6)


def test_kept_blocks_of_each_rule():
    influence = [0.9, 0.1, 0.3, 0.2, 0.05, 0.01]
    assert kept_blocks("the last ones", 6, 2) == [0, 1, 2, 3]
    assert kept_blocks("least influence", 6, 2, influence) == [0, 2, 3, 5]
    assert kept_blocks("every other", 7, 3) == [0, 2, 4, 6]
    with pytest.raises(ModelError, match="no rule"):
        kept_blocks("dice", 6, 3)


@pytest.mark.parametrize("rule", RULES)
def test_kept_blocks_drops_so_many(rule):
    for total in (4, 18, 28):
        for dropped in range(total - 2):
            keep = kept_blocks(rule, total, dropped, [0.1] * total)
            assert len(keep) == total - dropped and sorted(set(keep)) == keep
