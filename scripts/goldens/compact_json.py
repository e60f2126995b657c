"""Writes JSON that is small in the repository: no spaces, floats cut to nine digits (an f32 survives that)."""

import json
from pathlib import Path


def rounded(value):
    """`value` with every float in it cut to nine significant digits."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return value


def write_compact(path: Path, value) -> None:
    """For goldens: one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(rounded(value), separators=(",", ":"), ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    print(f"wrote {path} ({path.stat().st_size} bytes)")


def write_readable(path: Path, value) -> None:
    """For files that people read, such as `config.json`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
