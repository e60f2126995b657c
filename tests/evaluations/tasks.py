"""The tasks that the harness runs, one of each kind it has, over the data beside this file.

Used twice: to make the goldens, with the harness's PyTorch backend, and to check the server against them.
"""

import json
from pathlib import Path

HERE = Path(__file__).resolve().parent
GOLDENS = HERE / "goldens"
# One checkpoint of each family of decoders, in tests/goldens/checkpoints.
CHECKPOINTS = ["llama-tied-f32", "mixtral-f32", "dbrx-f32"]
# The tiny checkpoints' own. One document is longer, and has to be read in windows.
CONTEXT_LENGTH = 256
# The harness's longest window: it keeps one position for a generated token, and its PyTorch backend does not feed the last one.
WINDOW_LENGTH = CONTEXT_LENGTH - 2
GENERATED_TOKENS = 24


def task(name: str, **config) -> dict:
    data = HERE / "data" / f"{name}.jsonl"
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        **config,
    }


TASKS = [
    task(
        "multiple_choice",
        output_type="multiple_choice",
        doc_to_text="Question: {{question}}\nAnswer:",
        doc_to_choice="{{choices}}",
        doc_to_target="{{answer}}",
        fewshot_split="test",
        num_fewshot=1,
    ),
    task("rolling", output_type="loglikelihood_rolling", doc_to_text="", doc_to_target="{{text}}"),
    task(
        "generate",
        output_type="generate_until",
        doc_to_text="{{text}}",
        doc_to_target="",
        generation_kwargs={"until": ["e", "\n\n"], "max_gen_toks": GENERATED_TOKENS, "do_sample": False},
    ),
]


def responses(model: str, model_args: dict) -> dict[str, list]:
    """What the model answers: by task, for each document in order, the harness's own reading of each answer.

    A log-likelihood comes with whether greedy choice would have made it; a generated text is cut at its stop strings.
    """
    import lm_eval

    results = lm_eval.simple_evaluate(
        model=model, model_args=model_args, tasks=TASKS, batch_size=1, log_samples=True, bootstrap_iters=0, verbosity="ERROR"
    )
    by_task = {}
    for name, samples in results["samples"].items():
        ordered = sorted(samples, key=lambda sample: sample["doc_id"])
        by_task[name] = [[plain(answer[0]) for answer in sample["resps"]] for sample in ordered]
    return by_task


def plain(answer):
    """An answer as JSON has it."""
    if isinstance(answer, tuple | list):
        return [plain(part) for part in answer]
    return answer if isinstance(answer, str | bool) else float(answer)


def golden(checkpoint: str) -> dict:
    """The responses of the PyTorch backend."""
    return json.loads((GOLDENS / f"{checkpoint}.json").read_text())


def greedy_choice(checkpoint: str) -> tuple[list[int], list[int]]:
    """A prompt and the tokens that PyTorch's greedy choice goes on with."""
    prompt = json.loads((HERE.parent / "goldens" / f"{checkpoint}.json").read_text())["prompts"][-1]
    return prompt["tokens"], prompt["greedy"]["tokens"]
