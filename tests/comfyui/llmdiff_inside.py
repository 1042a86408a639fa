"""Checks of the LLMDiff nodes that must look inside ComfyUI's process. Run with ComfyUI's Python by
test_llmdiff_inside.py:

    llmdiff_inside.py PACK COMFYUI WORK_FOLDER

runs every ``case_*`` of llmdiff_cases_*.py, and prints one JSON object: {case: "" or the traceback}.
"""

import json
import traceback

import llmdiff_comfy  # noqa: F401 with which ComfyUI can be imported by those below

# isort: split
import llmdiff_cases_areas
import llmdiff_cases_encode
import llmdiff_cases_errors
import llmdiff_cases_memory
import llmdiff_cases_model
import llmdiff_cases_precision
import torch

CASES = [
    llmdiff_cases_model,
    llmdiff_cases_memory,
    llmdiff_cases_areas,
    llmdiff_cases_precision,
    llmdiff_cases_encode,
    llmdiff_cases_errors,
]


def main():
    results = {}
    with torch.inference_mode():
        for name, case in [item for file in CASES for item in vars(file).items()]:
            if name.startswith("case_"):
                try:
                    case()
                    results[name] = ""
                except Exception:
                    results[name] = traceback.format_exc()
    print("\n" + json.dumps(results))


if __name__ == "__main__":
    main()
