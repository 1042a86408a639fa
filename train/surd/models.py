"""What the steps with a model ask for on their command line."""

from __future__ import annotations

import argparse


def add_model_arguments(parser: argparse.ArgumentParser, model: str, batch_size: int) -> None:
    parser.add_argument("--model", default=model, help=f"folder or Hugging Face name (default: {model})")
    parser.add_argument("--revision", default="", help="branch, tag or commit on the hub")
    parser.add_argument("--local-files-only", action="store_true", help="never ask the hub")
    parser.add_argument("--batch-size", type=int, default=batch_size, help=f"pictures at once ({batch_size})")
    parser.add_argument("--device", default="auto", help="such as cuda:1 or cpu")
    parser.add_argument(
        "--threads", type=int, default=0, help="that read pictures (default: one a core, at most 8)"
    )
