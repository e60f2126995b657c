"""Synthetic checkpoints: random weights in the shapes of real models, for measurements of memory and speed.

Nothing is downloaded. The numbers repeat after CHUNK of them: how many there are is what matters, not what they are.
"""

import json
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CHUNK = 1 << 20


def folder_of_models() -> Path:
    """Where they are kept."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("HEARTH_CACHE") or caches / "hearth") / "synthetic"


@dataclass
class Shape:
    """A Llama, or with `experts` a Mixtral."""

    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    experts: int = 0
    experts_per_token: int = 0

    def tensors(self) -> Iterator[tuple[str, list[int]]]:
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        yield "model.embed_tokens.weight", [self.vocab, self.width]
        for layer in range(self.layers):
            place = f"model.layers.{layer}"
            yield f"{place}.input_layernorm.weight", [self.width]
            yield f"{place}.self_attn.q_proj.weight", [queries, self.width]
            yield f"{place}.self_attn.k_proj.weight", [keys, self.width]
            yield f"{place}.self_attn.v_proj.weight", [keys, self.width]
            yield f"{place}.self_attn.o_proj.weight", [self.width, queries]
            yield f"{place}.post_attention_layernorm.weight", [self.width]
            yield from self.feed_forward(place)
        yield "model.norm.weight", [self.width]
        if not self.tied:
            yield "lm_head.weight", [self.vocab, self.width]

    def feed_forward(self, place: str) -> Iterator[tuple[str, list[int]]]:
        names = [(f"{place}.mlp", "gate_proj", "up_proj", "down_proj")]
        if self.experts:
            mixture = f"{place}.block_sparse_moe"
            yield f"{mixture}.gate.weight", [self.experts, self.width]
            names = [(f"{mixture}.experts.{expert}", "w1", "w3", "w2") for expert in range(self.experts)]
        for inside, gate, up, down in names:
            yield f"{inside}.{gate}.weight", [self.inner, self.width]
            yield f"{inside}.{up}.weight", [self.inner, self.width]
            yield f"{inside}.{down}.weight", [self.width, self.inner]

    def config(self) -> dict:
        kind = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
        if self.experts:
            kind = {
                "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "sliding_window": None,
                "num_local_experts": self.experts, "num_experts_per_tok": self.experts_per_token,
            }
        return {
            **kind, "hidden_size": self.width,
            "intermediate_size": self.inner, "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads, "head_dim": self.head_dim, "vocab_size": self.vocab,
            "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
            "tie_word_embeddings": self.tied, "torch_dtype": "bfloat16", "eos_token_id": 1,
        }


def make_folder(folder: Path, shape: Shape) -> None:
    """Writes the model under another name first, so that what is there is whole."""
    if folder.exists():
        return
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    (partial / "config.json").write_text(json.dumps(shape.config()))
    (partial / "tokenizer.json").write_text(json.dumps(tokenizer(shape.vocab)))
    header, at = {}, 0
    for name, sizes in shape.tensors():
        length = 2 * sizes[0] * (sizes[1] if len(sizes) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": sizes, "data_offsets": [at, at + length]}
        at += length
    noise, ones = numbers(), b"\x80\x3f" * CHUNK
    with open(partial / "model.safetensors", "wb") as file:
        text = json.dumps(header).encode()
        file.write(len(text).to_bytes(8, "little") + text)
        for entry in header.values():
            left = entry["data_offsets"][1] - entry["data_offsets"][0]
            source = ones if len(entry["shape"]) == 1 else noise
            while left > 0:
                file.write(source[:left])
                left -= min(left, len(source))
    partial.rename(folder)


def numbers() -> bytes:
    """bf16 between 1/128 and 1/32 of either sign."""
    generator = random.Random(17)
    low = generator.randbytes(CHUNK)
    high = bytes(0x3C | (byte & 0x80) for byte in generator.randbytes(CHUNK))
    mixed = bytearray(2 * CHUNK)
    mixed[0::2], mixed[1::2] = low, high
    return bytes(mixed)


def tokenizer(vocab: int) -> dict:
    """Byte-level BPE whose merges make every pair of bytes, then triples, until the vocabulary is full."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = [chr(byte) for byte in visible] + [chr(256 + index) for index in range(256 - len(visible))]
    tokens, merges = ["<s>", "</s>", *letters], []
    for length in (1, 2):
        for left in [token for token in tokens[2:] if len(token) == length]:
            for right in letters:
                if len(tokens) == vocab:
                    break
                tokens.append(left + right)
                merges.append([left, right])
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    words = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "normalizer": None, "post_processor": None, "pre_tokenizer": words, "decoder": words,
        "added_tokens": [{"id": number, "content": tokens[number], **special} for number in (0, 1)],
        "model": {"type": "BPE", "vocab": {token: number for number, token in enumerate(tokens)}, "merges": merges},
    }
