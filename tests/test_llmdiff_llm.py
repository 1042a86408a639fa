"""Opening a language model for the block-wise encoding: its tokens, and what is refused in words."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from sur_core.language_model_files import KnowledgeError, in_words
from sur_core.llmdiff.encoder import BlockwiseEncoder
from sur_core.llmdiff.llm import check_llm, open_llm
from tests.llmdiff_models import LAYERS, POSITIONS, WIDTH, write_llm, write_tokenizer
from tests.tiny_models import make_tiny_llm


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return write_llm(tmp_path_factory.mktemp("llm") / "llama")


def opened(folder, **options):
    return open_llm(folder, **{"dtype": "fp32", "device": "cpu", "local_files_only": True, **options})


def refusal(folder, **options) -> str:
    with pytest.raises((ValueError, OSError)) as caught:
        opened(folder, **options)
    return str(caught.value)


def changed(folder, change):
    """The same model with other weights."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


# --- what is opened ---------------------------------------------------------------------------------------


def test_the_whole_model_without_its_head_and_without_gradients(llama):
    llm = opened(llama)
    encoder = BlockwiseEncoder(llm)
    assert (encoder.blocks, encoder.width, encoder.name) == (LAYERS, WIDTH, "llama")
    assert encoder.identity == llm.info.identity and len(encoder.identity) == 32
    assert type(llm.model).__name__ == "LlamaModel" and not llm.model.training
    assert not any(weight.requires_grad for weight in llm.model.parameters())
    assert (llm.device.type, llm.dtype) == ("cpu", torch.float32)


@pytest.mark.parametrize(
    ("dtype", "expected"), [("auto", "float32"), ("bf16", "bfloat16"), ("fp16", "float16")]
)
def test_types_are_chosen_as_for_knowledge_vectors(llama, dtype, expected):
    llm = opened(llama, dtype=dtype)
    assert str(llm.dtype) == f"torch.{expected}"
    assert BlockwiseEncoder(llm).encode(["a"], [1.0] * LAYERS)[0].isfinite().all()


@pytest.mark.parametrize(
    ("kind", "start"), [("llama", "<s>"), ("gpt2", "<|endoftext|>"), ("qwen2", "<|im_end|>")]
)
def test_every_prompt_begins_with_one_start_token(tmp_path, kind, start):
    from transformers import AutoTokenizer

    folder = make_tiny_llm(tmp_path, layers=2, kind=kind)
    theirs = AutoTokenizer.from_pretrained(folder)
    plain = theirs("a cat", add_special_tokens=False)["input_ids"]
    llm = opened(folder)
    first = theirs.convert_tokens_to_ids(start)
    assert llm.tokenizer(["a cat", ""]) == [[first, *plain], [first]], "Llama's puts <s> there by itself"
    assert BlockwiseEncoder(llm).tokenize(["a cat"]) == [[first, *plain]]


def test_a_tokenizer_that_ends_texts_with_a_token_does_not_here(tmp_path, llama):
    from tokenizers import processors
    from transformers import AutoTokenizer

    folder = write_llm(tmp_path)
    theirs = AutoTokenizer.from_pretrained(folder)
    bos, eos = theirs.bos_token_id, theirs.eos_token_id
    theirs.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", bos), ("</s>", eos)]
    )
    theirs.save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder)("a")["input_ids"][-1] == eos
    assert opened(folder).tokenizer(["a cat"]) == opened(llama).tokenizer(["a cat"])


def test_a_host_may_check_later(tmp_path):
    folder = write_llm(tmp_path, "gemma3", use_bidirectional_attention=True)
    llm = opened(folder, check=False)
    with pytest.raises(ValueError, match="causal"):
        check_llm(llm)


def test_blocks_that_accelerate_has_wrapped(llama):
    hooks = pytest.importorskip("accelerate.hooks")
    plain, wrapped = opened(llama), opened(llama)
    for block in wrapped.blocks:
        hooks.add_hook_to_module(block, hooks.AlignDevicesHook("cpu", io_same_device=True))
    one, other = (BlockwiseEncoder(llm).updates(["a cat"])[0] for llm in (plain, wrapped))
    assert torch.equal(one, other)


# --- models that cannot be --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["bert", "roberta", "clip_text_model", "clip", "vit", "t5", "bart", "whisper", "siglip"]
)
def test_encoders_are_refused_before_their_weights_are_read(tmp_path, kind):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    message = refusal(tmp_path)
    assert str(tmp_path) in message and repr(kind) in message and "decoder-only" in message
    assert "Llama" in message and "weights" not in message


def test_a_model_whose_tokens_see_later_ones(tmp_path):
    """As EmbeddingGemma's do: by its config a Gemma 3, by its attention an encoder."""
    message = refusal(write_llm(tmp_path, "gemma3", use_bidirectional_attention=True))
    assert "expected a causal language model" in message and "block 1" in message and "Qwen" in message


def test_a_model_whose_blocks_hear_nothing(tmp_path):
    def silence(tensors):
        for name in tensors:
            if "o_proj" in name:
                tensors[name].zero_()

    message = refusal(changed(write_llm(tmp_path), silence))
    assert f"in none of its {LAYERS} blocks" in message and "damaged" in message


def test_a_model_with_broken_numbers(tmp_path):
    def spoil(tensors):
        name = next(name for name in tensors if "layers.1." in name and "up_proj" in name)
        tensors[name][3] = float("nan")

    message = refusal(changed(write_llm(tmp_path), spoil))
    assert "block 2 gives NaN" in message and "fp32" in message and "damaged" in message


def test_missing_weights(tmp_path):
    folder = changed(write_llm(tmp_path), lambda tensors: tensors.pop(next(n for n in tensors if "up_" in n)))
    assert "1 weights are missing" in refusal(folder)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_missing_tokenizer_files(tmp_path, kind):
    folder = make_tiny_llm(tmp_path, layers=2, kind=kind)
    for file in [*folder.glob("tokenizer*"), *folder.glob("special*"), *folder.glob("vocab*")]:
        file.unlink()
    message = refusal(folder)
    assert str(folder) in message and "no tokenizer" in message and "tokenizer.json" in message


def test_a_tokenizer_without_start_token(tmp_path):
    folder = write_llm(tmp_path)
    for file in [*folder.glob("tokenizer*"), *folder.glob("special*")]:
        file.unlink()
    write_tokenizer(folder, unk_token="<unk>")
    assert "neither a BOS nor an EOS token" in refusal(folder)


def test_a_tokenizer_of_another_model(tmp_path):
    from transformers import AutoTokenizer

    folder = write_llm(tmp_path)
    larger = AutoTokenizer.from_pretrained(folder)
    larger.add_tokens([f"word{number}" for number in range(50)])
    larger.save_pretrained(folder)
    encoder = BlockwiseEncoder(opened(folder))
    with pytest.raises(ValueError, match="the token 307, and the model knows 300.*another model"):
        encoder.encode(["word49"], [1.0] * LAYERS)
    larger.bos_token = "word49"
    larger.save_pretrained(folder)
    assert "start token is number 307" in refusal(folder)


@pytest.mark.parametrize(
    ("options", "word"),
    [({"dtype": "fp8"}, "'fp8'"), ({"device": "gpu"}, "'gpu'"), ({"max_tokens": 1}, "from 2")],
)
def test_settings_that_cannot_be(llama, options, word):
    assert word in refusal(llama, **options)


def test_a_missing_folder(tmp_path):
    assert "no such folder" in refusal(tmp_path / "none")


# --- prompts that cannot be -------------------------------------------------------------------------------


def test_a_prompt_longer_than_max_tokens(llama):
    encoder = BlockwiseEncoder(opened(llama, max_tokens=20))
    assert len(encoder.encode(["x" * 19], [1.0] * LAYERS)[0]) == 20
    with pytest.raises(ValueError) as caught:
        encoder.encode(["fine", "ab" * 30], [1.0] * LAYERS)
    message = str(caught.value)
    assert "'abababab" in message and "61 tokens" in message and "max_tokens is 20" in message
    assert "ab" * 25 not in message and "raise max_tokens" in message


def test_a_prompt_longer_than_the_models_context(llama):
    encoder = BlockwiseEncoder(opened(llama, max_tokens=500))
    assert len(encoder.encode(["x" * (POSITIONS - 1)], [1.0] * LAYERS)[0]) == POSITIONS
    with pytest.raises(ValueError) as caught:
        encoder.encode(["x" * POSITIONS], [1.0] * LAYERS)
    message = str(caught.value)
    assert f"{POSITIONS + 1} tokens" in message and f"at most {POSITIONS}" in message
    assert "longer context" in message and "max_tokens" not in message


@pytest.mark.parametrize(
    ("prompts", "word"),
    [(["a", 3], "text, found 3"), ([None], "found None"), (["\ud800"], "cannot read"), ("a", "a list")],
)
def test_prompts_that_are_none(llama, prompts, word):
    with pytest.raises(ValueError, match=word):
        BlockwiseEncoder(opened(llama)).encode(prompts, [1.0] * LAYERS)


def test_no_prompts_are_no_encodings(llama):
    assert BlockwiseEncoder(opened(llama)).encode([], [1.0] * LAYERS) == []


def test_a_package_that_is_there_and_does_not_load_is_named_by_its_own_words():
    """A torchvision that does not fit torch, of which transformers says only that a module is not found."""
    cause = RuntimeError("operator torchvision::nms does not exist\n and more")
    words = "RuntimeError: operator torchvision::nms does not exist"
    with pytest.raises(KnowledgeError, match=words) as told, in_words("models/llm", "configuration"):
        raise ModuleNotFoundError("Could not import module 'PreTrainedModel'") from cause
    assert "None" not in str(told.value) and "and more" not in str(told.value)
