"""Tiny random rerankers (BERT and XLM-RoBERTa with one label), and the scores that they give pairs of texts."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoModelForSequenceClassification, AutoTokenizer, BertForSequenceClassification, XLMRobertaForSequenceClassification,
)

from .compact_json import write_compact, write_readable
from .tiny_berts import VOCABULARY, bert_config, randomise, xlm_config
from .tiny_tokenizers import unigram_tokenizer, word_piece_tokenizer

QUERY = "What is the capital of France?"

PAIRS = [
    (QUERY, "The capital of France is Paris."),
    (QUERY, "Rain fell on the hills all night, and in the morning the river had risen."),
    (QUERY, "fox"),
    (QUERY, ""),
    ("", "the lazy dog"),
    ("fox", "Héllo wörld — ünïcode, 漢字 and 12345!"),
    ("The capital of France is Paris.", QUERY),
]


@dataclass
class TinyReranker:
    name: str
    seed: int
    xlm: bool


TINY_RERANKERS = [
    TinyReranker(name="bert-reranker", seed=21, xlm=False),
    TinyReranker(name="xlm-roberta-reranker", seed=22, xlm=True),
]


def make_tiny_rerankers(goldens: Path) -> None:
    for checkpoint in TINY_RERANKERS:
        folder = goldens / "checkpoints" / checkpoint.name
        write_checkpoint(checkpoint, folder)
        write_compact(goldens / f"{checkpoint.name}.json", {"checkpoint": checkpoint.name, "pairs": scores(folder)})


@torch.no_grad()
def scores(folder: Path) -> list[dict]:
    """Tokens and score of each pair, in batches of one, so that no padding can touch a result. Only a batch takes an empty
    document for the second text of a pair."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    pairs = []
    for query, document in PAIRS:
        inputs = tokenizer([[query, document]], return_tensors="pt")
        [[score]] = model(**inputs).logits.tolist()
        types = inputs.get("token_type_ids", torch.zeros_like(inputs["input_ids"]))
        tokens, types = inputs["input_ids"][0].tolist(), types[0].tolist()
        pairs.append({"query": query, "document": document, "tokens": tokens, "types": types, "score": score})
    assert max(pair["score"] for pair in pairs) - min(pair["score"] for pair in pairs) > 0.5
    return pairs


def write_checkpoint(checkpoint: TinyReranker, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    torch.manual_seed(checkpoint.seed)
    config = xlm_config() if checkpoint.xlm else bert_config()
    config.num_labels = 1
    model = XLMRobertaForSequenceClassification(config) if checkpoint.xlm else BertForSequenceClassification(config)
    randomise(model)
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("transformers_version", None)
    write_readable(folder / "config.json", config)
    tokenizer = unigram_tokenizer(VOCABULARY) if checkpoint.xlm else word_piece_tokenizer(VOCABULARY)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    write_readable(folder / "tokenizer_config.json", tokenizer_config(checkpoint))


def tokenizer_config(checkpoint: TinyReranker) -> dict:
    if checkpoint.xlm:
        return {
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>",
            "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>", "model_input_names": ["input_ids", "attention_mask"],
        }
    return {
        "tokenizer_class": "BertTokenizer", "do_lower_case": True, "pad_token": "[PAD]", "unk_token": "[UNK]",
        "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]",
    }
