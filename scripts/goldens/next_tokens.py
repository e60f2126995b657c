"""Measures what a causal language model says comes next: log probabilities of a prompt and a greedy continuation.

All of it in f32, whole sequence at a time and without a cache: the slow way that has nothing to get wrong.
"""

import torch


@torch.no_grad()
def log_probabilities(model, tokens: list[int]) -> torch.Tensor:
    """Log-softmax over the vocabulary at every position; shape [tokens, vocabulary]."""
    logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
    return torch.log_softmax(logits.float(), dim=-1)


def best(row: torch.Tensor, count: int) -> list[list]:
    """The `count` likeliest tokens of one position as [token, log probability], best first."""
    values, tokens = row.topk(count)
    return [[int(token), float(value)] for token, value in zip(tokens, values)]


def measure_prompt(rows: torch.Tensor, tokens: list[int], count: int) -> dict:
    """Of each prompt token its log probability given those before it (the first has none), and the best at each position."""
    chosen = [float(rows[i, token]) for i, token in enumerate(tokens[1:])]
    return {"tokens": tokens, "logprobs": [None, *chosen], "top": [best(row, count) for row in rows]}


def measure_greedy(model, prompt: list[int], length: int, count: int, stop: frozenset[int] = frozenset()) -> dict:
    """The continuation that always takes the best token; ends after `length` tokens or with the first of `stop`."""
    tokens, result = list(prompt), {"tokens": [], "logprobs": [], "top": [], "margins": []}
    for _ in range(length):
        top = best(log_probabilities(model, tokens)[-1], count)
        tokens.append(top[0][0])
        result["tokens"].append(top[0][0])
        result["logprobs"].append(top[0][1])
        result["top"].append(top)
        result["margins"].append(top[0][1] - top[1][1])
        if tokens[-1] in stop:
            break
    return result
