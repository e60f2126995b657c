"""Loads a Llama GGUF file into PyTorch: every tensor expanded to f32, and the embedded tokenizer and chat template.

This is what "the weights as stored" means: no product is rounded to fewer bits than f32 after this.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from gguf import GGUFReader, dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

CONTROL_TOKEN = 3
"""`tokenizer.ggml.token_type` of a token that text never produces."""

TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}


@dataclass
class GgufReference:
    model: LlamaForCausalLM
    tokenizer: Tokenizer
    chat_template: str
    end_tokens: frozenset[int]


def load(path: Path) -> GgufReference:
    reader = GGUFReader(path)

    def value(key: str, default=None):
        present = reader.get_field(key)
        return default if present is None else present.contents()

    assert value("general.architecture") == "llama"
    names = {tensor.name for tensor in reader.tensors}
    config = LlamaConfig(
        vocab_size=len(value("tokenizer.ggml.tokens")),
        hidden_size=value("llama.embedding_length"),
        intermediate_size=value("llama.feed_forward_length"),
        num_hidden_layers=value("llama.block_count"),
        num_attention_heads=value("llama.attention.head_count"),
        num_key_value_heads=value("llama.attention.head_count_kv"),
        max_position_embeddings=value("llama.context_length"),
        rms_norm_eps=value("llama.attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": value("llama.rope.freq_base")},
        tie_word_embeddings="output.weight" not in names,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config).float().eval()
    state = {}
    for tensor in reader.tensors:
        weights = dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        state[name_in_transformers(tensor.name)] = torch.from_numpy(in_transformers_order(tensor.name, weights, config))
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    ends = frozenset([value("tokenizer.ggml.eos_token_id")])
    return GgufReference(model, read_tokenizer(value), value("tokenizer.chat_template"), ends)


def name_in_transformers(name: str) -> str:
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{TENSORS[parts[2]]}.{parts[3]}"
    return f"{TENSORS[parts[0]]}.{parts[1]}"


def in_transformers_order(name: str, weights: numpy.ndarray, config: LlamaConfig) -> numpy.ndarray:
    """GGUF keeps the rows of q and k with the two halves of each head interleaved; `transformers` keeps the halves apart."""
    if "attn_q." in name:
        heads = config.num_attention_heads
    elif "attn_k." in name:
        heads = config.num_key_value_heads
    else:
        return weights
    rows, columns = weights.shape
    pairs = weights.reshape(heads, rows // heads // 2, 2, columns)
    return numpy.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows, columns))


def read_tokenizer(value) -> Tokenizer:
    """The `smollm` flavour of the byte-level BPE: digits one by one, then GPT-2's pattern."""
    assert (value("tokenizer.ggml.model"), value("tokenizer.ggml.pre")) == ("gpt2", "smollm")
    tokens = value("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in value("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, value("tokenizer.ggml.token_type")) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer
