"""The tokenizers of the tiny checkpoints: a byte-level BPE with the ChatML tokens, a BERT WordPiece, a Unigram."""

import re

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "What is the capital of France? The capital of France is Paris.",
    "Rain fell on the hills all night, and in the morning the river had risen over the lower fields.",
    "She counted the coins twice: three of silver, eleven of copper, and one that was neither.",
    "A model reads the tokens before it and says which token it thinks comes next.",
    "user system assistant message answer question hello world thank you please",
]

BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

XLM_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]

END_OF_TEXT, TURN_START, TURN_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
"""Ids 0, 1 and 2, in this order."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def byte_pair_tokenizer(vocabulary: int) -> Tokenizer:
    """All 256 bytes, the three special tokens, and merges up to `vocabulary` entries: it can encode any text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(text, special=True, normalized=False) for text in (END_OF_TEXT, TURN_START, TURN_END)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    assert tokenizer.get_vocab_size() == vocabulary, tokenizer.get_vocab_size()
    return tokenizer


def word_piece_tokenizer(vocabulary: int) -> Tokenizer:
    """Lower-casing BERT tokenizer with `[CLS] text [SEP]`."""
    tokenizer = Tokenizer(models.WordPiece(word_pieces(vocabulary), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(BERT_SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(text, tokenizer.token_to_id(text)) for text in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def word_pieces(count: int) -> dict[str, int]:
    """Special tokens, letters alone and as continuations, frequent endings, then words: the same on every run, which
    the trainer of the `tokenizers` crate is not."""
    words = sorted({word for sentence in SENTENCES for word in re.findall(r"[a-z]{2,}", sentence.lower())})
    letters = sorted({letter for sentence in SENTENCES for letter in sentence.lower() if not letter.isspace()})
    endings = ["##" + ending for ending in ("ed", "en", "er", "es", "ing", "ly", "th")]
    pieces = [*BERT_SPECIAL, *letters, *("##" + letter for letter in letters if letter.isalpha()), *endings]
    pieces += words[: count - len(pieces)]
    assert len(pieces) == count == len(set(pieces)), (len(pieces), len(set(pieces)))
    return {piece: index for index, piece in enumerate(pieces)}


def unigram_tokenizer(vocabulary: int) -> Tokenizer:
    """XLM-RoBERTa's kind: pieces with log probabilities, `▁` for a space, and `<s> text </s>`."""
    words = sorted({word for sentence in SENTENCES for word in re.findall(r"[a-z]{2,}", sentence.lower())})
    letters = sorted({letter for sentence in SENTENCES for letter in sentence if not letter.isspace()})
    pieces = [("▁", -3.0), *((letter, -6.0) for letter in letters), *(("▁" + word, -5.0 - len(word) / 8) for word in words)]
    pieces += [(word, -7.0 - len(word) / 8) for word in words]
    pieces = [(piece, 0.0) for piece in XLM_SPECIAL] + pieces[: vocabulary - len(XLM_SPECIAL)]
    assert len(pieces) == vocabulary, len(pieces)
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=XLM_SPECIAL.index("<unk>")))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(XLM_SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[(text, tokenizer.token_to_id(text)) for text in ("<s>", "</s>")],
    )
    return tokenizer
