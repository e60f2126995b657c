"""Writes tiny Mixtral and DBRX models as GGUF files, tensor for tensor as llama.cpp's converter does, and rounds the model
in memory to what the file holds. The converter itself does not take them: it knows tokenizers by a list of checksums."""

import json
from pathlib import Path

import numpy
import torch
from gguf import GGMLQuantizationType, GGUFWriter, TokenType, dequantize, quantize

CONTROL_TOKENS = 3
"""The first tokens of the tiny tokenizer are special."""

EPSILON_OF_DBRX = 1e-5


class Weights:
    """Adds tensors to a file, and keeps in the model what the file's type made of them."""

    def __init__(self, writer: GGUFWriter, kind: str):
        self.writer, self.kind = writer, GGMLQuantizationType[kind]

    def vector(self, name: str, weight: torch.Tensor) -> None:
        self.writer.add_tensor(name, weight.numpy())

    def matrix(self, name: str, weight: torch.Tensor, turn=lambda rows: rows, back=lambda rows: rows) -> None:
        """`turn` puts the numbers into the file's order, `back` into the model's again."""
        stored = quantize(numpy.ascontiguousarray(turn(weight.numpy())), self.kind)
        self.writer.add_tensor(name, stored, raw_dtype=self.kind)
        weight.copy_(torch.from_numpy(numpy.ascontiguousarray(back(dequantize(stored, self.kind)))))


def interleaved(heads: int):
    """llama.cpp lets neighbours rotate together where `transformers` takes the two halves of a head."""

    def turn(rows: numpy.ndarray) -> numpy.ndarray:
        return rows.reshape(heads, 2, rows.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)

    def back(rows: numpy.ndarray) -> numpy.ndarray:
        return rows.reshape(heads, rows.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)

    return turn, back


def write_mixtral(path: Path, model, folder: Path, kind: str, merged: bool) -> None:
    """`merged` is the present layout, a tensor for all experts; the older one has a tensor an expert."""
    config, writer = model.config, GGUFWriter(path, "llama")
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    write_shape(writer, folder, [config.hidden_size, config.num_hidden_layers, config.max_position_embeddings],
                [config.num_attention_heads, config.num_key_value_heads],
                [config.num_local_experts, config.num_experts_per_tok])
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    weights = Weights(writer, kind)
    write_ends(weights, model.model.embed_tokens, model.model.norm, model.lm_head)
    for index, layer in enumerate(model.model.layers):
        block, attention = f"blk.{index}", layer.self_attn
        weights.vector(f"{block}.attn_norm.weight", layer.input_layernorm.weight)
        weights.vector(f"{block}.ffn_norm.weight", layer.post_attention_layernorm.weight)
        weights.matrix(f"{block}.attn_q.weight", attention.q_proj.weight, *interleaved(config.num_attention_heads))
        weights.matrix(f"{block}.attn_k.weight", attention.k_proj.weight, *interleaved(config.num_key_value_heads))
        weights.matrix(f"{block}.attn_v.weight", attention.v_proj.weight)
        weights.matrix(f"{block}.attn_output.weight", attention.o_proj.weight)
        weights.vector(f"{block}.ffn_gate_inp.weight", layer.mlp.gate.weight)
        gate, up = layer.mlp.experts.gate_up_proj.chunk(2, dim=1)
        for name, experts in (("gate", gate), ("up", up), ("down", layer.mlp.experts.down_proj)):
            if merged:
                weights.matrix(f"{block}.ffn_{name}_exps.weight", experts)
                continue
            for number, expert in enumerate(experts):
                weights.matrix(f"{block}.ffn_{name}.{number}.weight", expert)
    finish(writer)


def write_dbrx(path: Path, model, folder: Path, kind: str, merged: bool) -> None:
    assert merged
    config, writer = model.config, GGUFWriter(path, "dbrx")
    experts, top, inner = (getattr(config.ffn_config, key) for key in ("moe_num_experts", "moe_top_k", "ffn_hidden_size"))
    writer.add_feed_forward_length(inner)
    writer.add_layer_norm_eps(EPSILON_OF_DBRX)
    writer.add_clamp_kqv(config.attn_config.clip_qkv)
    write_shape(writer, folder, [config.d_model, config.n_layers, config.max_seq_len],
                [config.n_heads, config.attn_config.kv_n_heads], [experts, top])
    writer.add_rope_freq_base(config.attn_config.rope_theta)
    weights = Weights(writer, kind)
    write_ends(weights, model.transformer.wte, model.transformer.norm_f, model.lm_head)
    stacked = (experts, inner, config.d_model)
    for index, layer in enumerate(model.transformer.blocks):
        block, around, mlp = f"blk.{index}", layer.norm_attn_norm, layer.ffn.experts.mlp
        weights.vector(f"{block}.attn_norm.weight", around.norm_1.weight)
        weights.vector(f"{block}.attn_output_norm.weight", around.norm_2.weight)
        weights.matrix(f"{block}.attn_qkv.weight", around.attn.Wqkv.weight)
        weights.matrix(f"{block}.attn_output.weight", around.attn.out_proj.weight)
        weights.matrix(f"{block}.ffn_gate_inp.weight", layer.ffn.router.layer.weight)
        weights.matrix(f"{block}.ffn_gate_exps.weight", mlp.w1, lambda rows: rows.reshape(stacked), flat)
        weights.matrix(f"{block}.ffn_up_exps.weight", mlp.v1, lambda rows: rows.reshape(stacked), flat)
        weights.matrix(f"{block}.ffn_down_exps.weight", mlp.w2, lambda rows: rows.reshape(stacked).swapaxes(1, 2),
                       lambda rows: flat(rows.swapaxes(1, 2)))
    finish(writer)


def flat(experts: numpy.ndarray) -> numpy.ndarray:
    return experts.reshape(-1, experts.shape[-1])


def write_shape(writer: GGUFWriter, folder: Path, sizes: list[int], heads: list[int], experts: list[int]) -> None:
    """The keys that both architectures have, and the tokenizer."""
    writer.add_embedding_length(sizes[0])
    writer.add_block_count(sizes[1])
    writer.add_context_length(sizes[2])
    writer.add_head_count(heads[0])
    writer.add_head_count_kv(heads[1])
    writer.add_expert_count(experts[0])
    writer.add_expert_used_count(experts[1])
    tokenizer = json.loads((folder / "tokenizer.json").read_text())["model"]
    tokens = sorted(tokenizer["vocab"], key=tokenizer["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    control, normal = [TokenType.CONTROL] * CONTROL_TOKENS, [TokenType.NORMAL] * (len(tokens) - CONTROL_TOKENS)
    writer.add_token_types(control + normal)
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)


def write_ends(weights: Weights, embedding, norm, head) -> None:
    weights.matrix("token_embd.weight", embedding.weight)
    weights.vector("output_norm.weight", norm.weight)
    weights.matrix("output.weight", head.weight)


def finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
