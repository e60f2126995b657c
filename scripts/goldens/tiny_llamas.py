"""Tiny random Llama checkpoints, each with a different set of the spellings that real checkpoints have, and their goldens.

Weights are random but large, so that the answers are peaked and an error anywhere shows in the log probabilities.
Seeds are searched until every greedy step has a clear best token: a test may then compare tokens exactly.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from .compact_json import write_compact, write_readable
from .next_tokens import log_probabilities, measure_greedy, measure_prompt
from .tiny_tokenizers import CHAT_TEMPLATE, END_OF_TEXT, TURN_END, TURN_START, byte_pair_tokenizer

PROMPT_LENGTHS = (1, 7, 70)
GREEDY_TOKENS = 24
TOP = 5
TOKENIZER_VOCABULARY = 300
LEAST_MARGIN = 0.02
END_IDS = (0, 2)

LLAMA3_ROPE = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
"""With 16 dimensions a head and theta 10000 this leaves one pair of dimensions as it is, blends one, and slows the others."""


@dataclass
class TinyLlama:
    """One checkpoint: its shape, and what its `config.json` says about rope, types and end tokens, in its own spelling."""

    name: str
    stored: torch.dtype
    shape: dict
    spelling: dict
    generation: dict | None = None
    template_in_tokenizer_config: bool = False
    shard_size: str = "10MB"
    absent: tuple[str, ...] = ()
    first_seed: int = 1
    """Where the search starts: the seed it ended at last time, so that a second run is quick and writes the same files."""


SHAPE = {
    "vocab_size": TOKENIZER_VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}

TINY_LLAMAS = [
    TinyLlama(
        name="llama-tied-f32",
        stored=torch.float32,
        shape=SHAPE | {"tie_word_embeddings": True, "max_position_embeddings": 256},
        spelling={
            "rope_theta": 10000.0,
            "rope_scaling": {"rope_type": "llama3", **LLAMA3_ROPE},
            "torch_dtype": "float32",
            "eos_token_id": 2,
        },
        generation={"eos_token_id": [2, 0], "temperature": 0.6, "top_p": 0.9, "do_sample": True},
        first_seed=6,
    ),
    TinyLlama(
        name="llama-untied-bf16",
        stored=torch.bfloat16,
        shape=SHAPE | {"vocab_size": 320},
        spelling={
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "dtype": "bfloat16",
            "eos_token_id": 2,
        },
        generation={"eos_token_id": 2},
        first_seed=185,
    ),
    TinyLlama(
        name="llama-linear-f32",
        stored=torch.float32,
        shape=SHAPE | {"hidden_size": 48, "intermediate_size": 96},
        spelling={
            "rope_theta": 10000.0,
            "rope_scaling": {"type": "linear", "factor": 2.0},
            "torch_dtype": "float32",
            "eos_token_id": 2,
        },
        generation={"eos_token_id": [2]},
        template_in_tokenizer_config=True,
    ),
    TinyLlama(
        name="llama-sharded-f16",
        stored=torch.float16,
        shape=SHAPE | {"num_key_value_heads": 4, "rms_norm_eps": 1e-6},
        spelling={
            "rope_parameters": {"rope_type": "llama3", "rope_theta": 10000.0, **LLAMA3_ROPE},
            "dtype": "float16",
            "eos_token_id": [0, 2],
        },
        shard_size="110KB",
        absent=("head_dim",),
    ),
]


def make_tiny_llamas(goldens: Path) -> None:
    for checkpoint in TINY_LLAMAS:
        folder = goldens / "checkpoints" / checkpoint.name
        for seed in range(checkpoint.first_seed, 400):
            write_checkpoint(checkpoint, folder, seed)
            golden = measure(checkpoint.name, LlamaForCausalLM, folder)
            if is_decisive(golden):
                break
        else:
            raise SystemExit(f"{checkpoint.name}: no seed below 400 gives a decisive greedy continuation")
        write_compact(goldens / f"{checkpoint.name}.json", golden | {"seed": seed})


def write_checkpoint(checkpoint: TinyLlama, folder: Path, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    rope = checkpoint.spelling.get("rope_parameters") or {"rope_type": "default", "rope_theta": 10000.0}
    config = LlamaConfig(**checkpoint.shape, rope_parameters=rope, bos_token_id=1, eos_token_id=2, pad_token_id=None)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    randomise(model)
    model.to(checkpoint.stored).save_pretrained(folder, max_shard_size=checkpoint.shard_size)
    respell_config(checkpoint, folder / "config.json")
    (folder / "generation_config.json").unlink(missing_ok=True)
    if checkpoint.generation is not None:
        write_readable(folder / "generation_config.json", {"bos_token_id": 1, **checkpoint.generation})
    write_tokenizer(folder, checkpoint.shape["max_position_embeddings"], checkpoint.template_in_tokenizer_config)


@torch.no_grad()
def randomise(model: LlamaForCausalLM) -> None:
    """Overwrites every weight. Norm weights stay near one but differ, so that leaving one out is noticed."""
    for name, weight in model.named_parameters():
        if "norm" in name:
            weight.normal_(1.0, 0.2)
        elif "embed_tokens" in name or "lm_head" in name:
            weight.normal_(0.0, 0.4)
        else:
            weight.normal_(0.0, 2.0 / weight.shape[1] ** 0.5)


def respell_config(checkpoint: TinyLlama, path: Path) -> None:
    """Puts the checkpoint's own spelling in place of what `transformers` wrote."""
    config = json.loads(path.read_text())
    for key in ("rope_parameters", "rope_scaling", "rope_theta", "dtype", "torch_dtype", "eos_token_id", "transformers_version"):
        config.pop(key, None)
    for key in checkpoint.absent:
        config.pop(key, None)
    write_readable(path, config | checkpoint.spelling)


def write_tokenizer(folder: Path, context: int, template_inside: bool) -> None:
    byte_pair_tokenizer(TOKENIZER_VOCABULARY).save(str(folder / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": TURN_START,
        "eos_token": TURN_END,
        "unk_token": END_OF_TEXT,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
    }
    if template_inside:
        # The older layout: template inside, and a special token written as an object.
        config["chat_template"] = CHAT_TEMPLATE
        config["eos_token"] = {"__type": "AddedToken", "content": TURN_END, "lstrip": False, "normalized": False,
                               "rstrip": False, "single_word": False}
    else:
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    write_readable(folder / "tokenizer_config.json", config)


def measure(name: str, model_class: type, folder: Path) -> dict:
    """The goldens, from the files as written: what is measured has gone through the same spellings the product reads."""
    return measure_model(name, model_class.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval())


def measure_model(name: str, model) -> dict:
    choices = torch.Generator().manual_seed(11)
    prompts = []
    for length in PROMPT_LENGTHS:
        tokens = torch.randint(3, TOKENIZER_VOCABULARY, (length,), generator=choices).tolist()
        prompt = measure_prompt(log_probabilities(model, tokens), tokens, TOP)
        prompt["greedy"] = measure_greedy(model, tokens, GREEDY_TOKENS, TOP)
        prompts.append(prompt)
    return {"checkpoint": name, "prompts": prompts}


def is_decisive(golden: dict) -> bool:
    """Whether every greedy step has a clear winner, no end token is met, and the text is not one token over and over."""
    greedy = [prompt["greedy"] for prompt in golden["prompts"]]
    clear = all(min(one["margins"]) >= LEAST_MARGIN for one in greedy)
    endless = not any(token in END_IDS or token >= TOKENIZER_VOCABULARY for one in greedy for token in one["tokens"])
    return clear and endless and all(len(set(one["tokens"])) >= 6 for one in greedy)
