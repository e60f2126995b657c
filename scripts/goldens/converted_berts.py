"""The tiny BERTs as GGUF files, by llama.cpp's own converter."""

import shutil
import sys
import tempfile
from pathlib import Path

NAMES = ["bert-cls", "bert-mean"]


def make_converted_berts(goldens: Path, llama_cpp: Path) -> None:
    sys.path[:0] = [str(llama_cpp), str(llama_cpp / "gguf-py")]
    import convert_hf_to_gguf
    from conversion.base import TextModel

    # The converter knows vocabularies by their hash, and not these.
    TextModel.get_vocab_base_pre = lambda model, tokenizer: "jina-v2-en"
    for name in NAMES:
        output = goldens / "checkpoints" / f"{name}.gguf"
        with tempfile.TemporaryDirectory() as copy:
            # Its name goes into the file.
            folder = Path(shutil.copytree(goldens / "checkpoints" / name, Path(copy) / name))
            sys.argv = ["convert", str(folder), "--outtype", "f32", "--outfile", str(output)]
            convert_hf_to_gguf.main()
