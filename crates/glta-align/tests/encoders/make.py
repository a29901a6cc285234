"""Vectors of texts by the recipes of two embedding models, on tiny random checkpoints.

    pip install torch transformers tokenizers safetensors numpy
    python make.py

Writes a checkpoint's folder for each recipe and expected.json: texts and their vectors as the
models' cards compute them (last token, unit length).
"""

import copy
import json
import pathlib
import shutil

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, AutoTokenizer

HERE = pathlib.Path(__file__).parent
LETTERS = "abcdefghijklmnopqrstuvwxyzIQ:."
TEXTS = ["green tea", "an oak table with four legs", "a lamp.", "tea " * 30]
TASK = "find similar items"
MAX_TOKENS = 40
SIZES = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5,
)


def qwen3():
    """Byte-level characters, and an end token by the tokenizer itself."""
    vocab = {piece: i for i, piece in enumerate(["<|endoftext|>", "<|im_end|>", "Ġ", "Ċ", *LETTERS])}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_end|>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", pair="$A $B <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    config = dict(SIZES, model_type="qwen3", head_dim=16, tie_word_embeddings=True,
                  architectures=["Qwen3ForCausalLM"], eos_token_id=1)
    settings = dict(tokenizer_class="PreTrainedTokenizerFast", eos_token="<|im_end|>",
                    pad_token="<|endoftext|>")
    return tokenizer, config, settings, "Instruct: {task}\nQuery:{text}"


def e5_mistral():
    """SentencePiece-like characters; the end token is put behind the text by hand."""
    vocab = {p: i for i, p in enumerate(["<unk>", "<s>", "</s>", "▁", "<0x0A>", *LETTERS])}
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab, [], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    config = dict(SIZES, model_type="mistral", sliding_window=16, architectures=["MistralModel"],
                  eos_token_id=2, bos_token_id=1)
    settings = dict(tokenizer_class="PreTrainedTokenizerFast", bos_token="<s>", eos_token="</s>",
                    pad_token="</s>")
    return tokenizer, config, settings, "Instruct: {task}\nQuery: {text}"


def last_token(model, theirs, text, eos):
    ids = theirs(text, truncation=True, max_length=MAX_TOKENS - (eos is not None))["input_ids"]
    ids = torch.tensor([ids + ([eos] if eos is not None else [])])
    with torch.no_grad():
        states = model(ids, use_cache=False).last_hidden_state
    return torch.nn.functional.normalize(states[:, -1], p=2, dim=1)[0].tolist()


def main():
    expected = dict(transformers=transformers.__version__, task=TASK, max_tokens=MAX_TOKENS)
    for name, make in [("qwen3_embedding", qwen3), ("e5_mistral", e5_mistral)]:
        tokenizer, config, settings, form = make()
        folder = HERE / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "tokenizer.json").write_text(tokenizer.to_str() + "\n")
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
        torch.manual_seed(7)
        size = tokenizer.get_vocab_size()
        made = AutoConfig.for_model(config.pop("model_type"), **dict(config, vocab_size=size))
        model = AutoModel.from_config(made, attn_implementation="eager").float().eval()
        with torch.no_grad():
            for key, tensor in model.state_dict().items():
                noise = torch.rand_like(tensor) - 0.5
                # Halves, so that files and transformers have the same numbers.
                tensor.copy_((1 + 0.5 * noise if "norm" in key else noise).half().float())
        # A copy, for halves would round the rotary frequencies too.
        copy.deepcopy(model).half().save_pretrained(folder)
        theirs = AutoTokenizer.from_pretrained(folder)
        eos = theirs.eos_token_id if name == "e5_mistral" else None
        queries = [form.format(task=TASK, text=text.strip()) for text in TEXTS]
        expected[name] = dict(
            documents=[last_token(model, theirs, text.strip(), eos) for text in TEXTS],
            queries=[last_token(model, theirs, text, eos) for text in queries],
        )
    expected["texts"] = TEXTS
    (HERE / "expected.json").write_text(json.dumps(expected) + "\n")


main()
