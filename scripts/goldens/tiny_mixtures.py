"""Tiny random checkpoints of the mixtures of experts, Mixtral and DBRX, and their goldens: in the spelling of the
published checkpoints, in the merged layout that `transformers` keeps in memory, and as GGUF files.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import DbrxConfig, DbrxForCausalLM, MixtralConfig, MixtralForCausalLM

from .compact_json import write_compact, write_readable
from .tiny_ggufs import write_dbrx, write_mixtral
from .tiny_llamas import TOKENIZER_VOCABULARY, is_decisive, measure, measure_model, write_tokenizer

CONTEXT = 256


@dataclass
class TinyMixture:
    """One checkpoint: its configuration as `config.json` has it, and how its files are laid out."""

    name: str
    model_class: type
    stored: torch.dtype
    config: dict
    shard_size: str = "10MB"
    published_names: bool = True
    """One tensor an expert, as on the hub; otherwise all experts of a layer in one, as in memory."""
    first_seed: int = 1
    ggufs: dict = field(default_factory=dict)
    """GGUF files to make of it: name to the function that writes one and the type of its matrices."""


def mixtral(**fields) -> dict:
    return {
        "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "vocab_size": TOKENIZER_VOCABULARY,
        "hidden_act": "silu", "num_hidden_layers": 2, "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5,
        "rope_theta": 1000000.0, "sliding_window": None, "tie_word_embeddings": False, "bos_token_id": 1,
        "eos_token_id": 2, "router_jitter_noise": 0.0,
    } | fields


def dbrx(attention: dict, experts: dict, **fields) -> dict:
    """`transformers` 5 takes the base of the rotary angles from `rope_parameters` alone, the published checkpoints give it
    in `attn_config` alone: here it stands in both."""
    return {
        "architectures": ["DbrxForCausalLM"], "model_type": "dbrx", "vocab_size": TOKENIZER_VOCABULARY, "n_layers": 2,
        "max_seq_len": CONTEXT, "attn_config": {"rope_theta": 500000, **attention}, "ffn_config": experts,
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}, "tie_word_embeddings": False,
        "bos_token_id": 1, "eos_token_id": 2,
    } | fields


TINY_MIXTURES = [
    TinyMixture(
        name="mixtral-f32",
        model_class=MixtralForCausalLM,
        stored=torch.float32,
        config=mixtral(hidden_size=32, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2,
                       num_local_experts=4, num_experts_per_tok=2),
        first_seed=20,
        ggufs={"mixtral-per-expert-f32": (write_mixtral, "F32", False), "mixtral-q8_0": (write_mixtral, "Q8_0", True)},
    ),
    TinyMixture(
        name="mixtral-bf16",
        model_class=MixtralForCausalLM,
        stored=torch.bfloat16,
        config=mixtral(hidden_size=48, intermediate_size=40, num_attention_heads=6, num_key_value_heads=3,
                       num_local_experts=7, num_experts_per_tok=3),
        shard_size="100KB",
        first_seed=9,
    ),
    TinyMixture(
        name="mixtral-merged-f16",
        model_class=MixtralForCausalLM,
        stored=torch.float16,
        config=mixtral(hidden_size=32, intermediate_size=48, num_attention_heads=2, num_key_value_heads=2,
                       num_local_experts=3, num_experts_per_tok=1),
        published_names=False,
        first_seed=9,
    ),
    TinyMixture(
        name="dbrx-f32",
        model_class=DbrxForCausalLM,
        stored=torch.float32,
        config=dbrx({"kv_n_heads": 2, "clip_qkv": 1.5}, {"ffn_hidden_size": 32, "moe_num_experts": 6, "moe_top_k": 3},
                    d_model=32, n_heads=4),
        first_seed=27,
        ggufs={"dbrx-q8_0": (write_dbrx, "Q8_0", True)},
    ),
    TinyMixture(
        name="dbrx-bf16",
        model_class=DbrxForCausalLM,
        stored=torch.bfloat16,
        config=dbrx({"kv_n_heads": 1, "clip_qkv": 8},
                    {"ffn_hidden_size": 24, "moe_num_experts": 16, "moe_top_k": 4, "moe_normalize_expert_weights": 2.0},
                    d_model=32, n_heads=2),
        shard_size="100KB",
    ),
]


def make_tiny_mixtures(goldens: Path) -> None:
    for checkpoint in TINY_MIXTURES:
        folder = goldens / "checkpoints" / checkpoint.name
        for seed in range(checkpoint.first_seed, 1000):
            write_checkpoint(checkpoint, folder, seed)
            measured = [measure(checkpoint.name, checkpoint.model_class, folder)]
            if is_decisive(measured[0]):
                measured += make_ggufs(checkpoint, folder)
            if all(is_decisive(golden) for golden in measured):
                break
        else:
            raise SystemExit(f"{checkpoint.name}: no seed below 1000 gives decisive greedy continuations")
        for golden in measured:
            write_compact(goldens / f"{golden['checkpoint']}.json", golden | {"seed": seed})


def write_checkpoint(checkpoint: TinyMixture, folder: Path, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    torch.manual_seed(seed)
    model = new_model(checkpoint)
    randomise(model)
    model.to(checkpoint.stored).save_pretrained(
        folder, max_shard_size=checkpoint.shard_size, save_original_format=checkpoint.published_names
    )
    (folder / "generation_config.json").unlink(missing_ok=True)
    write_readable(folder / "config.json", checkpoint.config)
    write_tokenizer(folder, CONTEXT, template_inside=False)


def new_model(checkpoint: TinyMixture):
    config_class = {MixtralForCausalLM: MixtralConfig, DbrxForCausalLM: DbrxConfig}[checkpoint.model_class]
    return checkpoint.model_class(config_class(**json.loads(json.dumps(checkpoint.config))))


@torch.no_grad()
def randomise(model) -> None:
    """Overwrites every weight, large enough that the router decides clearly and `clip_qkv` has something to clip."""
    for name, weight in model.named_parameters():
        if "norm_f" in name or "norm.weight" in name or "layernorm" in name or ".norm_1" in name or ".norm_2" in name:
            weight.normal_(1.0, 0.2)
        elif "embed_tokens" in name or "wte" in name or "lm_head" in name:
            weight.normal_(0.0, 0.4)
        else:
            weight.normal_(0.0, 2.0 / weight.shape[-1] ** 0.5)


@torch.no_grad()
def make_ggufs(checkpoint: TinyMixture, folder: Path) -> list[dict]:
    """Writes the GGUF files; the goldens of those that do not hold the same numbers, from the numbers they hold."""
    goldens = []
    for name, (write, kind, merged) in checkpoint.ggufs.items():
        model = checkpoint.model_class.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        write(folder.parent / f"{name}.gguf", model, folder, kind, merged)
        if kind != "F32":
            goldens.append(measure_model(name, model))
    return goldens
