"""Writes a tiny random language model. Run with ComfyUI's Python, whose transformers must be able to read it:

write_llm.py TESTS_FOLDER FAMILY FOLDER [FAMILY FOLDER ...]
"""

import importlib.util
import sys
from pathlib import Path

tests, *wanted = sys.argv[1:]
spec = importlib.util.spec_from_file_location("llmdiff_models", Path(tests, "llmdiff_models.py"))
models = importlib.util.module_from_spec(spec)
spec.loader.exec_module(models)
for family, folder in zip(wanted[::2], wanted[1::2], strict=True):
    models.write_llm(Path(folder), family)
