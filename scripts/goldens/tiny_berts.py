"""Tiny random BERT and XLM-RoBERTa checkpoints as sentence-transformers folders, and their embeddings."""

import json
import shutil
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import BertConfig, BertModel, PreTrainedModel, XLMRobertaConfig, XLMRobertaModel

from .compact_json import write_compact, write_readable
from .tiny_tokenizers import unigram_tokenizer, word_piece_tokenizer

VOCABULARY = 128
LONGEST = 64
WIDTH = 32

TEXTS = [
    "What is the capital of France?",
    "Rain fell on the hills all night, and in the morning the river had risen.",
    "fox",
    "",
    "Héllo wörld — ünïcode, 漢字 and 12345!",
    "A model reads the tokens before it and says which token it thinks comes next. She counted the coins twice.",
]


@dataclass
class TinyBert:
    name: str
    pooling: str
    normalise: bool
    prefix: str
    seed: int
    xlm: bool = False
    old_names: bool = False
    """`gamma` and `beta` for the weights of the norms, and no key that has the default value in `config.json`."""


TINY_BERTS = [
    TinyBert(name="bert-cls", pooling="cls", normalise=True, prefix="bert.", seed=1),
    TinyBert(name="bert-mean", pooling="mean", normalise=True, prefix="", seed=2),
    TinyBert(name="bert-mean-raw", pooling="mean", normalise=False, prefix="", seed=3),
    TinyBert(name="bert-old-names", pooling="mean", normalise=True, prefix="", seed=4, old_names=True),
    TinyBert(name="xlm-roberta-cls", pooling="cls", normalise=True, prefix="", seed=5, xlm=True),
]


def make_tiny_berts(goldens: Path) -> None:
    for checkpoint in TINY_BERTS:
        folder = goldens / "checkpoints" / checkpoint.name
        write_checkpoint(checkpoint, folder)
        if checkpoint.xlm:
            write_pytorch_model(folder)
        model = SentenceTransformer(str(folder), device="cpu")
        write_compact(goldens / f"{checkpoint.name}.json", {"checkpoint": checkpoint.name, "inputs": embed(model, TEXTS)})


def embed(model: SentenceTransformer, texts: list[str]) -> list[dict]:
    """Tokens and embedding of each text, one at a time, so that no padding can touch a result."""
    inputs = []
    for text in texts:
        tokens = model.tokenizer(text, truncation=True, max_length=model.max_seq_length)["input_ids"]
        vector = model.encode([text], convert_to_numpy=True, show_progress_bar=False)[0]
        inputs.append({"text": text, "tokens": list(tokens), "embedding": [float(x) for x in vector]})
    return inputs


def write_checkpoint(checkpoint: TinyBert, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    torch.manual_seed(checkpoint.seed)
    model = XLMRobertaModel(xlm_config()) if checkpoint.xlm else BertModel(bert_config(512 if checkpoint.old_names else LONGEST))
    randomise(model)
    model.save_pretrained(folder)
    weights = folder / "model.safetensors"
    renamed = {checkpoint.prefix + stored_name(checkpoint, name): tensor for name, tensor in load_file(weights).items()}
    save_file(renamed, weights, metadata={"format": "pt"})
    tokenizer = unigram_tokenizer(VOCABULARY) if checkpoint.xlm else word_piece_tokenizer(VOCABULARY)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    write_surroundings(checkpoint, folder)


def write_pytorch_model(folder: Path) -> None:
    """The same weights as `transformers` wrote them before safetensors, with the positions that it then kept."""
    weights = OrderedDict(load_file(folder / "model.safetensors"))
    weights["embeddings.position_ids"] = torch.arange(LONGEST + 2).unsqueeze(0)
    weights._metadata = OrderedDict({"": {"version": 1}})
    torch.save(weights, folder.with_suffix(".bin"))


def bert_config(positions: int = LONGEST) -> BertConfig:
    return BertConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=positions, type_vocab_size=2, layer_norm_eps=1e-12,
    )


def xlm_config() -> XLMRobertaConfig:
    """As BGE-M3 has it: one token type, two rows of positions that no text uses."""
    return XLMRobertaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=LONGEST + 2, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1,
    )


def stored_name(checkpoint: TinyBert, name: str) -> str:
    if checkpoint.old_names:
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    return name


@torch.no_grad()
def randomise(model: PreTrainedModel) -> None:
    """Overwrites every weight, biases and norms too, so that leaving one out is noticed."""
    for name, weight in model.named_parameters():
        if "LayerNorm.weight" in name:
            weight.normal_(1.0, 0.2)
        elif name.endswith("bias"):
            weight.normal_(0.0, 0.2)
        elif "embeddings" in name:
            weight.normal_(0.0, 0.7)
        else:
            weight.normal_(0.0, 1.5 / weight.shape[1] ** 0.5)


def write_surroundings(checkpoint: TinyBert, folder: Path) -> None:
    """What stands around the weights in a sentence-transformers folder, in the layout of the published models."""
    config = json.loads((folder / "config.json").read_text())
    config.pop("transformers_version", None)
    if checkpoint.old_names:
        for key in ("max_position_embeddings", "type_vocab_size", "layer_norm_eps"):
            config.pop(key)
    write_readable(folder / "config.json", config)
    bert = {
        "tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": LONGEST, "pad_token": "[PAD]",
        "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]",
    }
    xlm = {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": LONGEST, "bos_token": "<s>", "pad_token": "<pad>",
        "eos_token": "</s>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>",
    }
    write_readable(folder / "tokenizer_config.json", xlm if checkpoint.xlm else bert)
    write_readable(folder / "sentence_bert_config.json", {"max_seq_length": LONGEST, "do_lower_case": False})
    write_readable(folder / "1_Pooling" / "config.json", {
        "word_embedding_dimension": WIDTH,
        "pooling_mode_cls_token": checkpoint.pooling == "cls",
        "pooling_mode_mean_tokens": checkpoint.pooling == "mean",
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    })
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    if checkpoint.normalise:
        modules.append({"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"})
    write_readable(folder / "modules.json", modules)
