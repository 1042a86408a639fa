"""For all tests: one thread in this process.

Tiny models gain nothing from more, and threads that wait for each other on a busy machine cost most of the
time. ComfyUI and most training commands have processes of their own.
"""

import torch

torch.set_num_threads(1)
