"""Goldens of real, trained models: SmolLM2 from its quantised file, and embedding models from their folders."""

import hashlib
import json
import re
from pathlib import Path

import numpy
import torch
from jinja2.sandbox import ImmutableSandboxedEnvironment
from sentence_transformers import SentenceTransformer

from . import gguf_reference
from .compact_json import write_compact
from .next_tokens import log_probabilities, measure_greedy, measure_prompt
from .tiny_berts import embed

PASSAGES = Path(__file__).with_name("passages.txt")
END_OF_SHORT_SET = "end of the short set"
TOP = 8
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
KL_TOKENS = 6000
SAMPLED = {"count": 15, "prompt_tokens": 8, "temperature": 0.8, "seed": 5}

EMBEDDING_TEXTS = {
    "all-minilm-l6-v2": [
        "What is the capital of France?",
        "Paris is the capital and largest city of France, on the river Seine.",
        "fox",
        "",
        "Größe, naïveté, Zürich — 東京 and Москва; emoji 🦀 too.",
        "def add(a, b):\n    return a + b",
        "1,234.56 USD on 2024-02-29 at 13:05 (UTC+02:00)",
        "Rain fell on the hills all night, and in the morning the river had risen over the lower fields. " * 8,
    ],
    "bge-small-zh-v1.5": [
        "法国的首都是哪里？",
        "巴黎是法国的首都和最大城市，位于塞纳河畔。",
        "狐",
        "",
        "为这个句子生成表示以用于检索相关文章：如何更换自行车轮胎",
        "Paris is the capital of France. 价格是1234.56元。",
        "今天北京的天气晴朗，气温二十五度，适合出门散步。",
        "昨夜山上一直下雨，清晨河水漫过了低处的田地。" * 12,
    ],
}


def read_passages() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(name, text) of the short set, then of all the others."""
    parts = re.split(r"^=== (.+)\n", PASSAGES.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    named = [(name, text.rstrip("\n")) for name, text in zip(parts[::2], parts[1::2])]
    cut = [name for name, _ in named].index(END_OF_SHORT_SET)
    return named[:cut], named[cut + 1:]


def make_smollm2(path: Path, folder: Path, whole_distributions: Path | None) -> None:
    reference = gguf_reference.load(path)
    short, others = read_passages()
    sequences = []
    for name, text in short:
        tokens = reference.tokenizer.encode(text, add_special_tokens=False).ids
        measured = measure_prompt(log_probabilities(reference.model, tokens), tokens, TOP)
        sequences.append({"name": name, "text": text, **measured})
    print(sum(len(one["tokens"]) for one in sequences), "tokens in the short set")
    golden = {
        "model": "smollm2-135m-instruct",
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "sequences": sequences,
        "chat": measure_chat(reference),
    }
    write_compact(folder / "smollm2-135m-instruct.json", golden)
    kl_tokens = folder / "smollm2-135m-instruct.kl-tokens.json"
    if not kl_tokens.exists():
        texts = [reference.tokenizer.encode(text, add_special_tokens=False).ids for _, text in short + others]
        write_compact(kl_tokens, {"sequences": texts + sample(reference, texts)})
    if whole_distributions:
        write_whole_distributions(reference, json.loads(kl_tokens.read_text())["sequences"], whole_distributions)


def measure_chat(reference: gguf_reference.GgufReference) -> dict:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    prompt = environment.from_string(reference.chat_template).render(messages=QUESTION, add_generation_prompt=True)
    tokens = reference.tokenizer.encode(prompt, add_special_tokens=False).ids
    greedy = measure_greedy(reference.model, tokens, 24, TOP, stop=reference.end_tokens)
    text = reference.tokenizer.decode([token for token in greedy["tokens"] if token not in reference.end_tokens])
    return {"messages": QUESTION, "prompt": prompt, "tokens": tokens, "greedy": greedy, "text": text}


@torch.no_grad()
def sample(reference: gguf_reference.GgufReference, texts: list[list[int]]) -> list[list[int]]:
    """Continuations by the model itself, as many as bring the whole to `KL_TOKENS`; made once, the tokens are committed."""
    starts = [tokens[: SAMPLED["prompt_tokens"]] for tokens in texts[: SAMPLED["count"]]]
    missing = KL_TOKENS - sum(len(tokens) for tokens in texts)
    torch.manual_seed(SAMPLED["seed"])
    sampled = reference.model.generate(
        torch.tensor(starts),
        max_new_tokens=-(-missing // len(starts)) - SAMPLED["prompt_tokens"],
        do_sample=True,
        temperature=SAMPLED["temperature"],
        top_k=0,
        suppress_tokens=sorted({0, 1, *reference.end_tokens}),
        pad_token_id=0,
    )
    return sampled.tolist()


def write_whole_distributions(reference: gguf_reference.GgufReference, sequences: list[list[int]], folder: Path) -> None:
    """One array [tokens, vocabulary] of f32 log probabilities, the sequences one after another."""
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(len(tokens) for tokens in sequences)
    shape = (total, reference.model.config.vocab_size)
    path = folder / "smollm2-135m-instruct.npy"
    array = numpy.lib.format.open_memmap(path, mode="w+", dtype="<f4", shape=shape)
    at = 0
    for tokens in sequences:
        array[at: at + len(tokens)] = log_probabilities(reference.model, tokens).numpy()
        at += len(tokens)
    array.flush()
    print(f"wrote {path} {shape}")


def make_embeddings(name: str, model_folder: Path, folder: Path) -> None:
    model = SentenceTransformer(str(model_folder), device="cpu")
    inputs = embed(model, EMBEDDING_TEXTS[name])
    print(name, "longest input:", max(len(one["tokens"]) for one in inputs), "limit:", model.max_seq_length)
    digest = hashlib.sha256((model_folder / "model.safetensors").read_bytes()).hexdigest()
    write_compact(folder / f"{name}.json", {"model": name, "sha256": digest, "inputs": inputs})
